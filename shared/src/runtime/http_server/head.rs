//! Looks at the bytes of request heads for what hyper and httparse accept and forget.
//!
//! Two programs that disagree about where a request ends can be made to disagree about whose it is (request smuggling),
//! and hyper 1.12 leaves no trace of three things behind which a proxy may see it otherwise: a line that ends in a bare
//! LF; `Content-Length` beside `Transfer-Encoding`; `Content-Length` twice. (What httparse refuses itself is not looked
//! for again: white space around names, folded lines, NUL, a bare CR. It then closes, so it need not be understood.)
//!
//! Must stay true: of a head that hyper accepts, this knows the end and the length of the body. Chunks are not followed.
//! After a head with `Transfer-Encoding` nothing is looked at any more, and `watched.rs` has the connection closed.

/// The parser's place in the stream. One byte is enough to go on.
#[derive(Debug)]
pub(super) enum Place {
    Head(Head),
    /// In a body that has this many more bytes.
    Body(u64),
    /// Behind a head with `Transfer-Encoding`.
    Unseen,
}

#[derive(Debug, Default)]
pub(super) struct Head {
    /// The line so far, without its end: of a long one, the beginning.
    line: Vec<u8>,
    after_cr: bool,
    /// The request line is complete.
    begun: bool,
    content_length: Option<u64>,
    transfer_encoding: bool,
}

/// A byte that must not reach hyper.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offense;

/// Longer than `content-length:` with twenty digits and some white space. A header that does not fit is none of ours,
/// or pads a length on purpose.
const LINE_KEPT: usize = 64;

impl Default for Place {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl Place {
    /// Goes over what was received. The offense, if there is one, is at this index; nothing behind it counts.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), (usize, Offense)> {
        let mut at = 0;
        while at < bytes.len() {
            match self {
                Self::Head(head) => {
                    let end = head.push(bytes[at]).map_err(|offense| (at, offense))?;
                    if let Some(next) = end {
                        *self = next;
                    }
                    at += 1;
                }
                Self::Body(rest) => {
                    let here = bytes.len() - at;
                    let taken = usize::try_from(*rest).map_or(here, |rest| rest.min(here));
                    *rest -= u64::try_from(taken).expect("64 bits are enough");
                    at += taken;
                    if *rest == 0 {
                        *self = Self::default();
                    }
                }
                Self::Unseen => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether the client has sent nothing that it has not finished.
    pub(super) fn is_between_requests(&self) -> bool {
        match self {
            Self::Head(head) => !head.begun && head.line.is_empty(),
            Self::Body(_) | Self::Unseen => false,
        }
    }
}

impl Head {
    /// Takes a byte. At the end of the head: what follows.
    fn push(&mut self, byte: u8) -> Result<Option<Place>, Offense> {
        match (self.after_cr, byte) {
            (true, b'\n') => self.end_line(),
            (true, _) | (false, b'\n') => Err(Offense),
            (false, b'\r') => {
                self.after_cr = true;
                Ok(None)
            }
            (false, _) => {
                if self.line.len() <= LINE_KEPT {
                    self.line.push(byte);
                }
                Ok(None)
            }
        }
    }

    fn end_line(&mut self) -> Result<Option<Place>, Offense> {
        self.after_cr = false;
        if self.line.is_empty() {
            // Before the request line empty lines are skipped, by hyper too (RFC 9112, 2.2).
            return Ok(self.begun.then(|| self.follows()));
        }
        if self.begun {
            self.header()?;
        }
        self.begun = true;
        self.line.clear();
        Ok(None)
    }

    fn header(&mut self) -> Result<(), Offense> {
        let colon = self.line.iter().position(|&byte| byte == b':');
        let (name, value) = self.line.split_at(colon.unwrap_or(self.line.len()));
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encoding = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = value.get(1..).and_then(length).ok_or(Offense)?;
            if self.line.len() > LINE_KEPT || self.content_length.replace(length).is_some() {
                return Err(Offense);
            }
        }
        if self.transfer_encoding && self.content_length.is_some() {
            return Err(Offense);
        }
        Ok(())
    }

    fn follows(&self) -> Place {
        match self.content_length {
            _ if self.transfer_encoding => Place::Unseen,
            Some(length) if length > 0 => Place::Body(length),
            Some(_) | None => Place::default(),
        }
    }
}

/// Digits alone: no sign and no list (RFC 9110, 8.6).
fn length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
