//! A socket whose request heads were looked at, and that is not closed in the face of a client that still sends.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::head::Place;

/// What hyper gets instead of an offense and all that follows it: the NUL makes it answer 400 and close, the empty line
/// makes it look at once (of a head that came in pieces it parses nothing before the end).
const REFUSED: &[u8] = b"\0\n\n";

/// How long to listen to a client that was answered before it had sent everything. Closing at once would reset the
/// connection, and with it the answer, if that has not been read yet (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    place: Place,
    /// What is left to say of [`REFUSED`], once there was an offense.
    refusal: Option<&'static [u8]>,
    /// Shared with who decides about this connection: part of an answer is still to be written.
    unwritten: Arc<AtomicBool>,
    /// Set once nothing more will be written.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            place: Place::default(),
            refusal: None,
            unwritten: Arc::default(),
            linger: None,
        }
    }

    pub(super) fn unwritten(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unwritten)
    }

    /// Hands out what is left of the refusal; nothing, which is the end of the stream, once all is said.
    fn refuse(&mut self, buf: &mut ReadBuf<'_>) {
        if let Some(left) = &mut self.refusal {
            let (now, later) = left.split_at(left.len().min(buf.remaining()));
            buf.put_slice(now);
            *left = later;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let Err((at, _offense)) = this.place.read(&buf.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(before + at);
            this.refusal = Some(REFUSED);
        }
        this.refuse(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unwritten.store(true, Ordering::Relaxed);
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unwritten.store(true, Ordering::Relaxed);
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper asks for it when it has written all that there was.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.unwritten.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Ends the answer, then discards what the client has sent, and waits for the rest of its request, for [`LINGER`] at
    /// most.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let linger = this
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let all_sent = this.refusal.is_none() && this.place.is_between_requests();
        let mut discarded = [0; 4096];
        while linger.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut discarded);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf)? {
                Poll::Ready(()) if buf.filled().is_empty() => break,
                Poll::Ready(()) => {}
                Poll::Pending if all_sent => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_behind_an_offense_does_not_come_through() {
        let sent = b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\nGET /other HTTP/1.1\r\n\r\n";
        for piece in 1..=64 {
            let mut guarded = Guarded::new(sent.as_slice());
            let (mut got, mut buffer) = (Vec::new(), vec![0; piece]);
            loop {
                let n = guarded.read(&mut buffer).await.expect("readable");
                if n == 0 {
                    break;
                }
                got.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(got, b"GET / HTTP/1.1\r\nHost: x\0\n\n", "{piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_still_sends_is_listened_to_for_a_second() {
        let (mut client, server) = duplex(64);
        let mut server = Guarded::new(server);
        let head = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
        client.write_all(head).await.expect("sent");
        server
            .read_exact(&mut [0; 38])
            .await
            .expect("the head is there");
        let begun = tokio::time::Instant::now();
        server.shutdown().await.expect("ended");
        assert_eq!(begun.elapsed().as_secs(), LINGER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_sent_everything_is_let_go_at_once() {
        let (mut client, server) = duplex(64);
        let mut server = Guarded::new(server);
        let head = b"GET / HTTP/1.1\r\n\r\n";
        client.write_all(head).await.expect("sent");
        server
            .read_exact(&mut [0; 18])
            .await
            .expect("the head is there");
        let begun = tokio::time::Instant::now();
        server.shutdown().await.expect("ended");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
