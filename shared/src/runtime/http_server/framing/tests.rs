use proptest::prelude::*;

use super::*;

/// The index of the error and the framing after the bytes, which do not depend on how the bytes are cut.
fn check(bytes: &[u8]) -> (Option<usize>, String) {
    let parts = |sizes: &[usize]| {
        let (mut framing, mut at) = (Framing::default(), 0);
        for &size in sizes {
            if let Err((offset, _)) = framing.check(&bytes[at..at + size]) {
                return (Some(at + offset), String::new());
            }
            at += size;
        }
        (None, format!("{framing:?}"))
    };
    let whole = parts(&[bytes.len()]);
    assert_eq!(parts(&vec![1; bytes.len()]), whole);
    for cut in 0..bytes.len() {
        assert_eq!(parts(&[cut, bytes.len() - cut]), whole);
    }
    whole
}

#[test]
fn ambiguous_framing_that_hyper_accepts_is_refused() {
    for (good, bad) in [
        ("GET / HTTP/1.1", "\nHost: x\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: x", "\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r\n", "\n"),
        ("", "\nGET / HTTP/1.1\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r", "y: z\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r", "\r\n\r\n"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING: x\r\nA: b\r\ncontent-length: 1\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r",
            "\n\r\n",
        ),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length:\r", "\n\r\n"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r",
            "\n\r\n",
        ),
        // After a body, and after a request without one.
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\nGET / HTTP/1.1",
            "\n",
        ),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1", "\n"),
    ] {
        let found = check(format!("{good}{bad}").as_bytes()).0;
        assert_eq!(found, Some(good.len()), "{good}{bad}");
    }
    let padded = format!(
        "POST / HTTP/1.1\r\nContent-Length: {}1\r\n\r\n",
        " ".repeat(60)
    );
    assert!(check(padded.as_bytes()).0.is_some());
}

#[test]
fn the_end_of_a_request_is_known() {
    let after = |text: &str| {
        let mut framing = Framing::default();
        assert_eq!(framing.check(text.as_bytes()), Ok(()), "{text}");
        check(text.as_bytes());
        (format!("{framing:?}"), framing.is_between_requests())
    };
    let fresh = format!("{:?}", Framing::default());
    for done in [
        "",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:  3\t\r\n\r\n\n\n\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(after(done), (fresh.clone(), true), "{done}");
    }
    for open in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r"] {
        assert!(!after(open).1, "{open}");
    }
    let body = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nxy";
    assert_eq!(after(body), ("Body(3)".to_owned(), false));
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n";
    assert_eq!(after(chunked), ("Unchecked".to_owned(), false));
}

/// Pieces of heads, most of them good.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\n",
        "Host: x\r\n",
        "Content-Length: 7\r\n",
        "content-length:07\r\n",
        "Content-Length : 7\r\n",
        "Content-Length:",
        "Transfer-Encoding: chunked\r\n",
        "a",
        "7",
        "\0",
        "é",
    ]);
    prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    /// The promise of this module, compared with the parser that hyper uses.
    #[test]
    fn the_end_and_the_body_length_of_an_accepted_head_are_known(bytes in pieces()) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(end)) = request.parse(&bytes) else {
            return Ok(());
        };
        let named = |name: &str| -> Vec<&[u8]> {
            let of = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            of.map(|header| header.value).collect()
        };
        let (lengths, encodings) = (named("content-length"), named("transfer-encoding"));
        let mut framing = Framing::default();
        if framing.check(&bytes[..end]).is_ok() {
            let expected = match (lengths.as_slice(), encodings.as_slice()) {
                ([], []) => Framing::default(),
                ([value], []) => match std::str::from_utf8(value).expect("digits").parse().expect("a number") {
                    0 => Framing::default(),
                    length => Framing::Body(length),
                },
                ([], [_, ..]) => Framing::Unchecked,
                both => panic!("accepted: {both:?}"),
            };
            prop_assert_eq!(format!("{framing:?}"), format!("{expected:?}"));
        }
    }
}
