//! `DATABASE_URL`: which URLs are accepted, and where they lead.

use std::net::IpAddr;

use sqlx::mysql::MySqlConnectOptions;

/// Never repeats the URL: it may hold a password.
pub(super) fn read_url(url: &str) -> Result<MySqlConnectOptions, String> {
    if !url.starts_with("mysql://") {
        return Err("DATABASE_URL must start with mysql://".to_owned());
    }
    let options: MySqlConnectOptions = url
        .parse()
        .map_err(|_| "DATABASE_URL is not a valid MySQL URL".to_owned())?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err("DATABASE_URL names no database (mysql://host/DATABASE)".to_owned());
    }
    let options = without_brackets(options);
    if !names_ssl_mode(url) && !is_this_machine(&options) {
        return Err(NO_SSL_MODE.to_owned());
    }
    Ok(options)
}

/// Without a mode sqlx tries TLS, and sends the password and every row in clear text if the server offers none, or
/// somebody in between says so.
const NO_SSL_MODE: &str = "DATABASE_URL names no ssl-mode, and its host is not this machine: add \
    ?ssl-mode=VERIFY_IDENTITY&ssl-ca=FILE (or VERIFY_CA, if the certificate does not name the host); \
    ssl-mode=DISABLED sends passwords and rows in clear text";

fn names_ssl_mode(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .any(|(name, _)| matches!(name, "ssl-mode" | "sslmode"))
}

fn is_this_machine(options: &MySqlConnectOptions) -> bool {
    let host = options.get_host();
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    options.get_socket().is_some()
        || host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(is_loopback)
}

/// In a URL an IPv6 address is in brackets, which belong neither to the address nor to the name in a certificate.
fn without_brackets(options: MySqlConnectOptions) -> MySqlConnectOptions {
    let bare = options
        .get_host()
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .map(str::to_owned);
    match bare {
        Some(host) => options.host(&host),
        None => options,
    }
}

/// Host and port, for messages.
pub fn server_of(options: &MySqlConnectOptions) -> String {
    match (options.get_socket(), options.get_host(), options.get_port()) {
        (Some(socket), _, _) => socket.display().to_string(),
        (None, host, port) if host.contains(':') => format!("[{host}]:{port}"),
        (None, host, port) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_has_no_brackets_when_it_is_looked_up() {
        let options = read_url("mysql://u@[::1]:3307/d").expect("good");
        assert_eq!((options.get_host(), options.get_port()), ("::1", 3307));
        assert_eq!(server_of(&options), "[::1]:3307");
    }

    #[test]
    fn p13_only_this_machine_may_be_reached_without_a_word_about_tls() {
        for local in [
            "mysql://u@127.0.0.1/d",
            "mysql://u@127.1.2.3/d",
            "mysql://u@localhost/d",
            "mysql://u@[::1]/d",
            "mysql://u@[::ffff:127.0.0.1]/d",
            "mysql://u@db/d?socket=/run/mysqld.sock",
        ] {
            assert!(read_url(local).is_ok(), "{local}");
        }
        for host in [
            "db",
            "10.0.0.7",
            "[2001:db8::7]",
            "127.0.0.1.example.com",
            "localhost.example.com",
        ] {
            let problem = read_url(&format!("mysql://u:s3cret@{host}/d?ssl-ca=/x"));
            let problem = problem.expect_err(host);
            assert!(problem.contains("ssl-mode=VERIFY_IDENTITY"), "{problem}");
            assert!(!problem.contains("s3cret"), "{problem}");
            for mode in ["ssl-mode=VERIFY_CA", "sslmode=disabled"] {
                let url = format!("mysql://u@{host}/d?{mode}");
                assert!(read_url(&url).is_ok(), "{url}");
            }
        }
    }
}
