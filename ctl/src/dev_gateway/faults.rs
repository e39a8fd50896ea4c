//! The fault of a call: scripted for its refund, or random.

use std::collections::{HashMap, VecDeque};

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

/// The command's help describes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    TimeoutBefore,
    TimeoutAfter,
    Reset,
    ServerError,
    ServerErrorAfter,
    TooManyRequests,
    InProgress,
    KeyReused,
    Decline,
    DeclineThenPays,
    SlowBody,
    WrongAmount,
}

impl Fault {
    /// Whether a look-up can have it: the others are about paying.
    fn concerns_look_ups(self) -> bool {
        match self {
            Self::TimeoutBefore
            | Self::Reset
            | Self::ServerError
            | Self::TooManyRequests
            | Self::SlowBody
            | Self::WrongAmount => true,
            Self::TimeoutAfter
            | Self::ServerErrorAfter
            | Self::InProgress
            | Self::KeyReused
            | Self::Decline
            | Self::DeclineThenPays => false,
        }
    }
}

/// The faults of the next calls about one refund, call by call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    #[serde(default)]
    submit: VecDeque<Fault>,
    #[serde(default)]
    find: VecDeque<Fault>,
}

/// The two kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Submit,
    Find,
}

/// Probabilities that together are at most 1.
#[derive(Debug)]
pub(super) struct Odds(Vec<(Fault, f64)>);

impl Odds {
    /// # Errors
    /// Their sum is above 1.
    pub(super) fn of(odds: &[(Fault, f64)]) -> Result<Self, String> {
        let sum: f64 = odds.iter().map(|(_, odds)| odds).sum();
        if sum > 1.0 {
            return Err(format!(
                "--fault: the probabilities add up to {sum}, which is above 1"
            ));
        }
        Ok(Self(odds.to_vec()))
    }
}

#[derive(Debug)]
pub(super) struct Faults {
    scripts: HashMap<String, Script>,
    odds: Odds,
    random: StdRng,
}

impl Faults {
    pub(super) fn new(odds: Odds, seed: u64) -> Self {
        Self {
            scripts: HashMap::new(),
            odds,
            random: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn write(&mut self, reference: String, script: Script) {
        self.scripts.insert(reference, script);
    }

    /// The fault of this call. A scripted call has no random fault.
    pub(super) fn next(&mut self, call: Call, reference: &str) -> Option<Fault> {
        let script = self.scripts.get_mut(reference);
        let scripted = script.and_then(|script| match call {
            Call::Submit => script.submit.pop_front(),
            Call::Find => script.find.pop_front(),
        });
        scripted
            .or_else(|| self.draw())
            .filter(|fault| call == Call::Submit || fault.concerns_look_ups())
    }

    fn draw(&mut self) -> Option<Fault> {
        let mut left: f64 = self.random.random();
        self.odds.0.iter().find_map(|(fault, odds)| {
            left -= odds;
            (left < 0.0).then_some(*fault)
        })
    }
}

pub(super) fn parse_odds(text: &str) -> Result<(Fault, f64), String> {
    let (name, odds) = text.split_once('=').ok_or("expected FAULT=PROBABILITY")?;
    let fault = Fault::from_str(name, false)?;
    match odds.parse() {
        Ok(odds) if (0.0..=1.0).contains(&odds) => Ok((fault, odds)),
        _ => Err("the probability must be from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_random(odds: &[(Fault, f64)]) -> Faults {
        Faults::new(Odds::of(odds).expect("at most 1"), 7)
    }

    #[test]
    fn a_script_is_followed_call_by_call_and_then_faults_are_random() {
        let mut faults = at_random(&[(Fault::Decline, 1.0)]);
        let script = r#"{"submit":["timeout-after","reset"],"find":["wrong-amount"]}"#;
        faults.write(
            "k".to_owned(),
            serde_json::from_str(script).expect("a script"),
        );
        assert_eq!(faults.next(Call::Submit, "k"), Some(Fault::TimeoutAfter));
        assert_eq!(faults.next(Call::Find, "k"), Some(Fault::WrongAmount));
        assert_eq!(faults.next(Call::Submit, "k"), Some(Fault::Reset));
        assert_eq!(faults.next(Call::Submit, "k"), Some(Fault::Decline));
        assert_eq!(
            faults.next(Call::Find, "k"),
            None,
            "a look-up cannot be declined"
        );
        assert_eq!(faults.next(Call::Submit, "other"), Some(Fault::Decline));
    }

    #[test]
    fn random_faults_follow_their_odds_and_their_seed() {
        let draw = || {
            let mut faults = at_random(&[(Fault::Reset, 0.2), (Fault::Decline, 0.1)]);
            (0..10_000)
                .map(|_| faults.next(Call::Submit, "k"))
                .collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        let share = |fault| drawn.iter().filter(|drawn| **drawn == fault).count();
        assert!((1_800..2_200).contains(&share(Some(Fault::Reset))));
        assert!((850..1_150).contains(&share(Some(Fault::Decline))));
    }

    #[test]
    fn odds_are_read() {
        assert_eq!(parse_odds("reset=0.25"), Ok((Fault::Reset, 0.25)));
        for bad in [
            "reset",
            "reset=",
            "reset=2",
            "reset=-1",
            "reset=NaN",
            "boom=0.1",
        ] {
            assert!(parse_odds(bad).is_err(), "{bad}");
        }
        assert!(Odds::of(&[(Fault::Reset, 0.6), (Fault::Decline, 0.6)]).is_err());
    }
}
