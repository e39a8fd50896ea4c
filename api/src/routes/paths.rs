//! Every path: what metrics call it, and which methods it has.

/// A path of the api.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// As in the OpenAPI document; a metric label, so of bounded cardinality.
    pub(crate) template: &'static str,
    /// `Allow`.
    pub(crate) methods: &'static str,
}

const PATHS: [Path; 14] = [
    path("/returns", "GET, POST"),
    path("/returns/{id}", "GET"),
    path("/returns/{id}/cancel", "POST"),
    path("/returns/{id}/approve", "POST"),
    path("/returns/{id}/reject", "POST"),
    path("/returns/{id}/retry-refund", "POST"),
    path("/returns/{id}/events", "GET"),
    path("/returns/{id}/stream", "GET"),
    path("/events", "GET"),
    path("/orders", "GET"),
    path("/openapi.json", "GET"),
    path("/docs", "GET"),
    path("/docs/{file}", "GET"),
    path("/problems/{slug}", "GET"),
];

const fn path(template: &'static str, methods: &'static str) -> Path {
    Path { template, methods }
}

/// The path that a request names.
pub(crate) fn find(path: &str) -> Option<&'static Path> {
    PATHS.iter().find(|known| {
        let mut asked = path.trim_matches('/').split('/');
        let mut parts = known.template.trim_matches('/').split('/');
        let fits = parts.by_ref().all(|part| {
            asked
                .next()
                .is_some_and(|text| part.starts_with('{') || part == text)
        });
        fits && asked.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_by_its_template() {
        let template = |path| find(path).map(|path| path.template);
        assert_eq!(template("/returns"), Some("/returns"));
        assert_eq!(template("/returns/"), Some("/returns"));
        assert_eq!(template("/returns/5"), Some("/returns/{id}"));
        assert_eq!(
            template("/returns/5/retry-refund"),
            Some("/returns/{id}/retry-refund")
        );
        for unknown in ["/", "/return", "/returns/5/pay", "/returns/5/cancel/now"] {
            assert_eq!(template(unknown), None, "{unknown}");
        }
    }
}
