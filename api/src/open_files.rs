//! Enough file descriptors for the connections that the settings allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Besides clients' connections: connections to MySQL, listeners, files.
const OTHERS: u64 = 256;

/// Raises this process's limit of open files for `connections`, and warns if the system does not allow it.
///
/// The usual soft limit of 1,024 is for programs that call `select`. Other programs may raise it up to the hard limit
/// (systemd.exec(5), "LimitNOFILE").
pub(crate) fn allow(connections: u32) {
    let needed = u64::from(connections) + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let possible = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit {
        current: Some(possible),
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    } else if possible < needed {
        tracing::warn!(
            possible,
            needed,
            "the system allows fewer open files than API_MAX_CONNECTIONS needs; raise its hard limit (LimitNOFILE)"
        );
    }
}
