//! MySQL's error numbers, by what a caller can do about them.
//!
//! Must stay true: an error is permanent only if its number is listed here, because it is known to be about the statement
//! or the row's values. Every other number, also one that a later server or a proxy invents, waits: a server in trouble
//! must not cost a client its filing, a provider its answer, or a record its place. Numbers and names are those of the
//! manual ("Server Error Message Reference").

use super::DbFailure;

/// Each number that we know, in ascending order, with what it means.
const KNOWN: &[(u16, Meaning)] = &[
    (1022, Meaning::Values),         // ER_DUP_KEY
    (1040, Meaning::Busy),           // ER_CON_COUNT_ERROR
    (1044, Meaning::Denied),         // ER_DBACCESS_DENIED_ERROR
    (1045, Meaning::Denied),         // ER_ACCESS_DENIED_ERROR
    (1046, Meaning::Statement),      // ER_NO_DB_ERROR
    (1048, Meaning::Values),         // ER_BAD_NULL_ERROR
    (1049, Meaning::Denied),         // ER_BAD_DB_ERROR
    (1052, Meaning::Statement),      // ER_NON_UNIQ_ERROR
    (1053, Meaning::ConnectionLost), // ER_SERVER_SHUTDOWN
    (1054, Meaning::Statement),      // ER_BAD_FIELD_ERROR
    (1055, Meaning::Statement),      // ER_WRONG_FIELD_WITH_GROUP
    (1058, Meaning::Statement),      // ER_WRONG_VALUE_COUNT
    (1062, Meaning::Values),         // ER_DUP_ENTRY, if its key cannot be read
    (1064, Meaning::Statement),      // ER_PARSE_ERROR
    (1066, Meaning::Statement),      // ER_NONUNIQ_TABLE
    (1105, Meaning::Busy),           // ER_UNKNOWN_ERROR, also of Vitess and other proxies
    (1109, Meaning::Statement),      // ER_UNKNOWN_TABLE
    (1110, Meaning::Statement),      // ER_FIELD_SPECIFIED_TWICE
    (1114, Meaning::Busy),           // ER_RECORD_FILE_FULL
    (1129, Meaning::Busy),           // ER_HOST_IS_BLOCKED
    (1136, Meaning::Statement),      // ER_WRONG_VALUE_COUNT_ON_ROW
    (1142, Meaning::Denied),         // ER_TABLEACCESS_DENIED_ERROR
    (1143, Meaning::Denied),         // ER_COLUMNACCESS_DENIED_ERROR
    (1146, Meaning::Statement),      // ER_NO_SUCH_TABLE
    (1153, Meaning::Values),         // ER_NET_PACKET_TOO_LARGE
    (1176, Meaning::Statement),      // ER_KEY_DOES_NOT_EXITS
    (1180, Meaning::Busy),           // ER_ERROR_DURING_COMMIT
    (1193, Meaning::Statement),      // ER_UNKNOWN_SYSTEM_VARIABLE
    (1203, Meaning::Busy),           // ER_TOO_MANY_USER_CONNECTIONS
    (1205, Meaning::LockConflict),   // ER_LOCK_WAIT_TIMEOUT
    (1206, Meaning::Busy),           // ER_LOCK_TABLE_FULL
    (1213, Meaning::LockConflict),   // ER_LOCK_DEADLOCK
    (1226, Meaning::Busy),           // ER_USER_LIMIT_REACHED
    (1227, Meaning::Denied),         // ER_SPECIFIC_ACCESS_DENIED_ERROR
    (1231, Meaning::Statement),      // ER_WRONG_VALUE_FOR_VAR
    (1264, Meaning::Values),         // ER_WARN_DATA_OUT_OF_RANGE
    (1265, Meaning::Values),         // WARN_DATA_TRUNCATED
    (1267, Meaning::Statement),      // ER_CANT_AGGREGATE_2COLLATIONS
    (1290, Meaning::ReadOnly),       // ER_OPTION_PREVENTS_STATEMENT
    (1292, Meaning::Values),         // ER_TRUNCATED_WRONG_VALUE
    (1300, Meaning::Values),         // ER_INVALID_CHARACTER_STRING
    (1305, Meaning::Statement),      // ER_SP_DOES_NOT_EXIST
    (1317, Meaning::ConnectionLost), // ER_QUERY_INTERRUPTED
    (1347, Meaning::Statement),      // ER_WRONG_OBJECT
    (1364, Meaning::Statement),      // ER_NO_DEFAULT_FOR_FIELD
    (1365, Meaning::Values),         // ER_DIVISION_BY_ZERO
    (1366, Meaning::Values),         // ER_TRUNCATED_WRONG_VALUE_FOR_FIELD
    (1367, Meaning::Values),         // ER_ILLEGAL_VALUE_FOR_TYPE
    (1390, Meaning::Statement),      // ER_PS_MANY_PARAM
    (1406, Meaning::Values),         // ER_DATA_TOO_LONG
    (1411, Meaning::Values),         // ER_WRONG_VALUE_FOR_TYPE
    (1412, Meaning::Busy),           // ER_TABLE_DEF_CHANGED
    (1419, Meaning::Statement),      // ER_BINLOG_CREATE_ROUTINE_NEED_SUPER
    (1441, Meaning::Values),         // ER_DATETIME_FUNCTION_OVERFLOW
    (1451, Meaning::Values),         // ER_ROW_IS_REFERENCED_2
    (1452, Meaning::Values),         // ER_NO_REFERENCED_ROW_2
    (1461, Meaning::Busy),           // ER_MAX_PREPARED_STMT_COUNT_REACHED
    (1582, Meaning::Statement),      // ER_WRONG_PARAMCOUNT_TO_NATIVE_FCT
    (1586, Meaning::Values),         // ER_DUP_ENTRY_WITH_KEY_NAME
    (1615, Meaning::Busy),           // ER_NEED_REPREPARE
    (1644, Meaning::Values),         // ER_SIGNAL_EXCEPTION: a trigger refuses the row
    (1690, Meaning::Values),         // ER_DATA_OUT_OF_RANGE
    (1698, Meaning::Denied),         // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    (1792, Meaning::ReadOnly),       // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
    (1820, Meaning::Denied),         // ER_MUST_CHANGE_PASSWORD
    (1836, Meaning::ReadOnly),       // ER_READ_ONLY_MODE
    (1862, Meaning::Denied),         // ER_MUST_CHANGE_PASSWORD_LOGIN
    (1927, Meaning::ConnectionLost), // ER_CONNECTION_KILLED of MariaDB's proxies
    (2006, Meaning::ConnectionLost), // CR_SERVER_GONE_ERROR, by proxies
    (2013, Meaning::ConnectionLost), // CR_SERVER_LOST, by proxies
    (3024, Meaning::Busy),           // ER_QUERY_TIMEOUT
    (3032, Meaning::Busy),           // ER_SERVER_OFFLINE_MODE
    (3100, Meaning::ReadOnly), // ER_RUN_HOOK_ERROR: Group Replication lets this member not write
    (3101, Meaning::Busy),     // ER_TRANSACTION_ROLLBACK_DURING_COMMIT
    (3105, Meaning::Statement), // ER_NON_DEFAULT_VALUE_FOR_GENERATED_COLUMN
    (3118, Meaning::Denied),   // ER_ACCOUNT_HAS_BEEN_LOCKED
    (3140, Meaning::Values),   // ER_INVALID_JSON_TEXT
    (3141, Meaning::Values),   // ER_INVALID_JSON_TEXT_IN_PARAM
    (3143, Meaning::Statement), // ER_INVALID_JSON_PATH
    (3156, Meaning::Values),   // ER_INVALID_JSON_VALUE_FOR_CAST
    (3169, Meaning::ConnectionLost), // ER_SESSION_WAS_KILLED
    (3572, Meaning::LockConflict), // ER_LOCK_NOWAIT
    (3669, Meaning::Values),   // ER_JT_VALUE_OUT_OF_RANGE
    (3819, Meaning::Values),   // ER_CHECK_CONSTRAINT_VIOLATED
    (3955, Meaning::Denied),   // ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK
    (4031, Meaning::ConnectionLost), // ER_CLIENT_INTERACTION_TIMEOUT
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Values,
    Statement,
    LockConflict,
    ConnectionLost,
    ReadOnly,
    Denied,
    Busy,
}

/// What the error of this number means, without the parts of a duplicate.
pub(super) fn failure(number: u16) -> DbFailure {
    let known = KNOWN.binary_search_by_key(&number, |(known, _)| *known);
    match known.map_or(Meaning::Busy, |at| KNOWN[at].1) {
        Meaning::Values => DbFailure::Values,
        Meaning::Statement => DbFailure::Statement,
        Meaning::LockConflict => DbFailure::LockConflict,
        Meaning::ConnectionLost => DbFailure::ConnectionLost,
        Meaning::ReadOnly => DbFailure::ReadOnly,
        Meaning::Denied => DbFailure::Denied,
        Meaning::Busy => DbFailure::Unavailable,
    }
}

/// The number as a metric label. Numbers that are not listed share one series, so that a server cannot make endless ones.
pub(super) fn label(number: u16) -> String {
    match KNOWN.binary_search_by_key(&number, |(known, _)| *known) {
        Ok(_) => number.to_string(),
        Err(_) => "unlisted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(KNOWN.is_sorted_by_key(|(number, _)| *number));
    }

    #[test]
    fn only_what_is_known_to_be_about_statement_or_values_is_permanent() {
        for number in [
            1226, 3032, 3100, 3101, 1180, 1105, 9001, 1461, 1114, 1021, 1206, 1615, 1129, 1135,
            1040, 1044, 1045, 1290, 1792, 1836, 1205, 1213, 65_535,
        ] {
            assert!(failure(number).is_transient(), "{number}");
        }
        for number in [
            1054, 1064, 1146, 1264, 1364, 1366, 1406, 1451, 1452, 3819, 1048,
        ] {
            assert!(!failure(number).is_transient(), "{number}");
        }
    }

    #[test]
    fn an_unlisted_number_has_no_series_of_its_own() {
        assert_eq!(
            (label(1114), label(9001)),
            ("1114".to_owned(), "unlisted".to_owned())
        );
    }
}
