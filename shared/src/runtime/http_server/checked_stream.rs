//! A socket that checks the framing of requests and closes with a linger time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::framing::Framing;

/// The bytes that hyper gets in place of a framing error and everything after it. The NUL makes hyper respond 400 and
/// close; the empty line makes it parse at once, because it parses nothing before the end of a head.
const REFUSED: &[u8] = b"\0\n\n";

/// How long to read from a client that got its response before it had sent its whole request. Closing at once would reset
/// the connection, and the client could lose the response (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct CheckedStream<S> {
    stream: S,
    framing: Framing,
    /// The rest of [`REFUSED`] that hyper has not read yet, once there was a framing error.
    refusal: Option<&'static [u8]>,
    /// Whether part of a response is still to be written. Shared with the task of this connection.
    unwritten: Arc<AtomicBool>,
    /// Set once nothing more will be written.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> CheckedStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            refusal: None,
            unwritten: Arc::default(),
            linger: None,
        }
    }

    pub(super) fn unwritten(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unwritten)
    }

    /// Writes the rest of the refusal to `buf`. Nothing more means the end of the stream.
    fn refuse(&mut self, buf: &mut ReadBuf<'_>) {
        if let Some(left) = &mut self.refusal {
            let (now, later) = left.split_at(left.len().min(buf.remaining()));
            buf.put_slice(now);
            *left = later;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CheckedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let Err((at, _)) = this.framing.check(&buf.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(before + at);
            this.refusal = Some(REFUSED);
        }
        this.refuse(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for CheckedStream<S> {
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

    /// hyper flushes when it has written everything.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.unwritten.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Ends the response, then reads and discards the rest of the request, for [`LINGER`] at most.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let linger = this
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let all_sent = this.refusal.is_none() && this.framing.is_between_requests();
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
    async fn bytes_after_a_framing_error_do_not_reach_hyper() {
        let sent = b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\nGET /other HTTP/1.1\r\n\r\n";
        for piece in 1..=64 {
            let mut stream = CheckedStream::new(sent.as_slice());
            let (mut got, mut buffer) = (Vec::new(), vec![0; piece]);
            loop {
                let n = stream.read(&mut buffer).await.expect("readable");
                if n == 0 {
                    break;
                }
                got.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(got, b"GET / HTTP/1.1\r\nHost: x\0\n\n", "{piece}");
        }
    }

    /// How long the close takes after the client has sent this.
    async fn close_after(sent: &[u8]) -> Duration {
        let (mut client, server) = duplex(64);
        let mut server = CheckedStream::new(server);
        client.write_all(sent).await.expect("sent");
        let mut received = vec![0; sent.len()];
        server.read_exact(&mut received).await.expect("received");
        let begun = tokio::time::Instant::now();
        server.shutdown().await.expect("closed");
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_close_waits_a_second_for_a_client_that_still_sends() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(close_after(head).await.as_secs(), LINGER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_close_does_not_wait_for_a_client_that_has_sent_everything() {
        assert_eq!(close_after(b"GET / HTTP/1.1\r\n\r\n").await, Duration::ZERO);
    }
}
