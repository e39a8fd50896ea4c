//! Shifts the clocks of a process under test, as a suspended virtual machine sees them.
//!
//! The process is stopped with a signal for a while, and its clocks are set back by that time before it goes on. So the
//! clocks stand still for it while MySQL, Kafka and the other processes went on.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::Command;

const SHIM: &str = include_str!("clock_shim.c");

/// Which clocks stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// The machine slept, or its host paused it and tells it: only the monotonic clock stands still.
    Slept,
    /// It was restored from a snapshot: the boot-time clock stands still, too, and the wall clock is corrected.
    Restored,
}

/// The clocks of one process.
#[derive(Debug)]
pub struct ClockShifts {
    folder: tempfile::TempDir,
    file: File,
}

impl ClockShifts {
    /// Compiles the shim. Nothing is shifted yet.
    ///
    /// # Panics
    /// There is no C compiler (`cc`), which the build needs anyway.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("shim.c");
        std::fs::write(&source, SHIM).expect("write the shim");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("shim.so"))
            .arg(&source)
            .status()
            .expect("a C compiler");
        assert!(compiled.success(), "the shim compiles");
        let file = File::create(folder.path().join("shifts")).expect("a file");
        let mut shifts = Self { folder, file };
        shifts.write([0; 3]);
        shifts
    }

    /// The environment of the process.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        [
            ("LD_PRELOAD", path("shim.so").display().to_string()),
            ("CLOCK_SHIFTS", path("shifts").display().to_string()),
        ]
    }

    /// Sets the clocks of the stopped process back.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn set_back(&mut self, secs: i64, suspension: Suspension) {
        let boot = match suspension {
            Suspension::Slept => 0,
            Suspension::Restored => -secs,
        };
        self.write([-secs, boot, 0]);
    }

    /// In place, because the process has the file mapped.
    fn write(&mut self, shifts: [i64; 3]) {
        let bytes: Vec<u8> = shifts
            .iter()
            .flat_map(|shift| shift.to_ne_bytes())
            .collect();
        self.file.rewind().expect("rewind");
        self.file.write_all(&bytes).expect("write the shifts");
    }
}

impl Default for ClockShifts {
    fn default() -> Self {
        Self::new()
    }
}
