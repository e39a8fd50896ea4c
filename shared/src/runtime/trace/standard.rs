//! Values of standard variables, read as their specification says
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>): an empty one counts as not set, and
//! one that is not understood is ignored with a warning. Other programs of the same deployment read them too.

use std::convert::Infallible;
use std::ops::RangeInclusive;

use clap::ValueEnum;

use super::sampler::SamplerName;

/// The value that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standard<T> {
    pub(super) value: T,
    /// Another one was given, and is not understood.
    is_ignored: bool,
}

/// A parser for clap. `default` must be understood.
pub(super) fn standard<T>(
    default: &'static str,
    understand: impl Fn(&str) -> Option<T> + Clone,
) -> impl Fn(&str) -> Result<Standard<T>, Infallible> + Clone {
    move |text| {
        let given = understand(text);
        let is_ignored = given.is_none() && !text.is_empty();
        let value = given.or_else(|| understand(default));
        Ok(Standard {
            value: value.expect("the default is understood"),
            is_ignored,
        })
    }
}

impl<T> Standard<T> {
    /// `name` of the variable. Its value is not repeated.
    pub(super) fn warn(&self, name: &str) {
        if self.is_ignored {
            tracing::warn!("{name} is ignored: its value is not understood");
        }
    }
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    match (is("true"), is("false")) {
        (false, false) => None,
        (yes, _) => Some(yes),
    }
}

pub(super) fn number_in(range: RangeInclusive<u32>) -> impl Fn(&str) -> Option<u32> + Clone {
    move |text| text.parse().ok().filter(|number| range.contains(number))
}

pub(super) fn ratio(text: &str) -> Option<f64> {
    let ratio = text.parse().ok();
    ratio.filter(|ratio| (0.0..=1.0).contains(ratio))
}

pub(super) fn sampler_name(text: &str) -> Option<SamplerName> {
    SamplerName::from_str(text, true).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(
        default: &'static str,
        understand: impl Fn(&str) -> Option<T> + Clone,
        text: &str,
    ) -> (T, bool) {
        let Ok(read) = standard(default, understand)(text);
        (read.value, read.is_ignored)
    }

    #[test]
    fn an_empty_value_is_none_and_one_that_is_not_understood_is_ignored() {
        for (text, disabled, ignored) in [
            ("TRUE", true, false),
            ("True", true, false),
            ("FALSE", false, false),
            ("", false, false),
            ("1", false, true),
            ("yes", false, true),
        ] {
            let read = read("false", boolean, text);
            assert_eq!(read, (disabled, ignored), "{text:?}");
        }
        let sampler = |text| read("parentbased_always_on", sampler_name, text);
        let default = SamplerName::ParentbasedAlwaysOn;
        assert_eq!(sampler(""), (default, false));
        assert_eq!(sampler("jaeger_remote"), (default, true));
        assert_eq!(sampler("ALWAYS_OFF"), (SamplerName::AlwaysOff, false));
        for (text, value, ignored) in [("0", 0.0, false), ("1.1", 0.5, true), ("all", 0.5, true)] {
            assert_eq!(read("0.5", ratio, text), (value, ignored), "{text}");
        }
        let number = |text| read("7", number_in(1..=9), text);
        assert_eq!(number("9"), (9, false));
        for text in ["0", "10", "-1", "many"] {
            assert_eq!(number(text), (7, true), "{text}");
        }
    }
}
