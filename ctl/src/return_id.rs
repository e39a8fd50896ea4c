//! A return on the command line.

use shared::domain::ids::ReturnId;

use crate::error::CtlError;

pub(crate) fn parse_return(text: &str) -> Result<ReturnId, String> {
    match text.parse() {
        // `parse` alone would accept "+1".
        Ok(id) if id > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(ReturnId(id)),
        Ok(_) | Err(_) => Err("must be a return's id: a whole number from 1".to_owned()),
    }
}

pub(crate) fn no_such_return(id: ReturnId) -> CtlError {
    CtlError::Problem(format!(
        "there is no return {id}.\nTo do: `returnsctl returns list` shows all"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_is_a_whole_number_from_1() {
        assert_eq!(parse_return("456"), Ok(ReturnId(456)));
        for text in ["", "0", "-1", "+1", "1.5", "x", "9223372036854775808"] {
            assert!(parse_return(text).is_err(), "{text:?}");
        }
    }
}
