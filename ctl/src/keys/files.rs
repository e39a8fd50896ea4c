//! Files that appear whole or not at all.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::CtlError;

pub(super) fn make_folder(path: &Path) -> Result<(), CtlError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))
        }
        _ => Ok(()),
    }
}

/// A finished file beside `path`, to be linked or renamed to it.
pub(super) fn write_temporary(path: &Path, content: &[u8], mode: u32) -> Result<PathBuf, CtlError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", Uuid::now_v7().simple()));
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // Regardless of the umask: the api may run as another user, who must still be able to read the set.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(temporary),
        Err(error) => {
            // Half a file is of no use. The first error is the one to report.
            let _ = fs::remove_file(&temporary);
            Err(io_error("write", &temporary, error))
        }
    }
}

pub(super) fn io_error(verb: &str, path: &Path, source: io::Error) -> CtlError {
    CtlError::Io {
        what: format!("cannot {verb} {}", path.display()),
        source,
    }
}
