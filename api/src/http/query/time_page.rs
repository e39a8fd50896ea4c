//! The parameters that all lists in the order of time have.

use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;

use super::{ParameterReader, parse_cursor};

/// As text. Flattened into the parameters of each list.
#[derive(Debug, Deserialize, IntoParams)]
pub(in crate::http) struct TimePageParameters {
    /// Created at this time or later.
    #[param(nullable = false, format = "date-time")]
    created_from: Option<String>,
    /// Created before this time.
    #[param(nullable = false, format = "date-time")]
    created_before: Option<String>,
    /// Items on a page. Not with an export.
    #[param(value_type = Option<u32>, nullable = false, minimum = 1, maximum = 200, default = 50)]
    pub(in crate::http) limit: Option<String>,
    /// `next_cursor` of the previous page. Not with an export.
    #[param(nullable = false, pattern = "^[0-9]{1,17}-[0-9]{1,18}$")]
    pub(in crate::http) cursor: Option<String>,
}

/// A page of the rows that were created in a period.
#[derive(Debug)]
pub(in crate::http) struct TimePage {
    pub(in crate::http) created_from: Option<OffsetDateTime>,
    pub(in crate::http) created_before: Option<OffsetDateTime>,
    /// Time and id of the last row of the page before.
    pub(in crate::http) after: Option<(OffsetDateTime, i64)>,
    pub(in crate::http) limit: u32,
}

impl ParameterReader {
    pub(in crate::http) fn time_page(&mut self, parameters: TimePageParameters) -> TimePage {
        TimePage {
            created_from: self.time("created_from", parameters.created_from),
            created_before: self.time("created_before", parameters.created_before),
            after: self.cursor(parameters.cursor, parse_cursor),
            limit: self.limit(parameters.limit),
        }
    }
}
