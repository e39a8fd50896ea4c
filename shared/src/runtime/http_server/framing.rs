//! The framing of HTTP/1.1 requests: refuses ambiguous heads that hyper and httparse accept.
//!
//! If a proxy and this server disagree about where a request ends, an attacker can hide one request in another (request
//! smuggling). hyper 1.12 accepts three ambiguous forms and leaves no trace of them: a line that ends in a bare LF,
//! `Content-Length` beside `Transfer-Encoding`, and `Content-Length` twice. httparse itself refuses others (white space
//! around names, folded lines, NUL, a bare CR) and hyper then closes the connection, so they are not checked here.
//!
//! Must stay true: for each head that hyper accepts, this finds its end and the length of the body. Chunks are not parsed:
//! after a head with `Transfer-Encoding` nothing more is checked, and `connection_service.rs` closes the connection.

/// The position in the stream of requests. It accepts the bytes in pieces of any size.
#[derive(Debug)]
pub(super) enum Framing {
    Head(Head),
    /// In a body that has this many more bytes.
    Body(u64),
    /// After a head with `Transfer-Encoding`.
    Unchecked,
}

#[derive(Debug, Default)]
pub(super) struct Head {
    /// The line so far, or the beginning of a long one.
    line: Vec<u8>,
    after_cr: bool,
    /// The request line is complete.
    has_request_line: bool,
    content_length: Option<u64>,
    transfer_encoding: bool,
}

/// A byte that must not reach hyper.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FramingError;

/// Longer than `content-length:` with twenty digits and some white space. A longer header is a different one, or its
/// length is padded on purpose.
const LINE_KEPT: usize = 64;

impl Default for Framing {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl Framing {
    /// Checks the next bytes of the stream. The index of the error is that of the first byte that must not reach hyper.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), (usize, FramingError)> {
        let mut at = 0;
        while at < bytes.len() {
            match self {
                Self::Head(head) => {
                    let end = head.push(bytes[at]).map_err(|error| (at, error))?;
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
                Self::Unchecked => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether the client has sent complete requests only.
    pub(super) fn is_between_requests(&self) -> bool {
        match self {
            Self::Head(head) => !head.has_request_line && head.line.is_empty(),
            Self::Body(_) | Self::Unchecked => false,
        }
    }
}

impl Head {
    /// Takes a byte. At the end of the head it returns the framing of what follows.
    fn push(&mut self, byte: u8) -> Result<Option<Framing>, FramingError> {
        match (self.after_cr, byte) {
            (true, b'\n') => self.end_line(),
            (true, _) | (false, b'\n') => Err(FramingError),
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

    fn end_line(&mut self) -> Result<Option<Framing>, FramingError> {
        self.after_cr = false;
        if self.line.is_empty() {
            // Empty lines before the request line are skipped, as hyper does (RFC 9112, 2.2).
            return Ok(self.has_request_line.then(|| self.body()));
        }
        if self.has_request_line {
            self.header()?;
        }
        self.has_request_line = true;
        self.line.clear();
        Ok(None)
    }

    fn header(&mut self) -> Result<(), FramingError> {
        let colon = self.line.iter().position(|&byte| byte == b':');
        let (name, value) = self.line.split_at(colon.unwrap_or(self.line.len()));
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encoding = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = value.get(1..).and_then(length).ok_or(FramingError)?;
            if self.line.len() > LINE_KEPT || self.content_length.replace(length).is_some() {
                return Err(FramingError);
            }
        }
        if self.transfer_encoding && self.content_length.is_some() {
            return Err(FramingError);
        }
        Ok(())
    }

    fn body(&self) -> Framing {
        match self.content_length {
            _ if self.transfer_encoding => Framing::Unchecked,
            Some(length) if length > 0 => Framing::Body(length),
            Some(_) | None => Framing::default(),
        }
    }
}

/// Digits only: no sign and no list (RFC 9110, 8.6).
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
