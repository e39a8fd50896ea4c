//! A client that writes bytes, not requests.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Wire(TcpStream);

/// Nothing here takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// The server may have closed already: its response shows why.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    pub(crate) async fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if !self.send(&[*byte]).await {
                return;
            }
            // Lets the server read, in another task, mostly one byte at a time.
            tokio::task::yield_now().await;
        }
    }

    /// Everything until the server closes, which it must.
    pub(crate) async fn until_closed(mut self) -> String {
        let mut answers = Vec::new();
        let read = tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut answers)).await;
        let text = String::from_utf8(answers).expect("UTF-8");
        // A reset is a close too.
        assert!(read.is_ok(), "still open after: {text}");
        text
    }

    /// Everything received until it contains these words.
    pub(crate) async fn until(&mut self, words: &str) -> String {
        let mut text = String::new();
        let read = async {
            let mut buffer = [0; 4096];
            while !text.contains(words) {
                let n = self.0.read(&mut buffer).await.expect("readable");
                assert!(n > 0, "closed after: {text}");
                text.push_str(std::str::from_utf8(&buffer[..n]).expect("UTF-8"));
            }
        };
        let found = tokio::time::timeout(DEADLINE, read).await.is_ok();
        assert!(found, "no {words} in: {text}");
        text
    }
}

/// The status of each response. A body may contain the version, too.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    let versions = answers.match_indices("HTTP/1.");
    versions
        .filter_map(|(at, _)| answers.get(at + 9..at + 12)?.parse().ok())
        .collect()
}
