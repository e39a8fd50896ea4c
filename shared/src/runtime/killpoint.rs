//! Named places at which a crash test can end this process as `kill -9` would.
//!
//! Without the feature `failpoints` a kill point compiles to nothing, and `make check` proves that release builds
//! have it off. With it, `FAILPOINTS='relay.after_ack=return'` arms one (syntax of the crate `fail`,
//! `3*off->return` lets three passes by).

/// Reads `FAILPOINTS`; call once, first thing in `main`. Keep the value for as long as points should fire.
#[cfg(feature = "failpoints")]
pub fn arm() -> impl Sized {
    fail::FailScenario::setup()
}

/// Reads `FAILPOINTS`; call once, first thing in `main`. Without the feature `failpoints`: nothing.
#[cfg(not(feature = "failpoints"))]
pub fn arm() -> impl Sized {}

/// Ends the process without any clean-up if the point `name` is armed.
pub fn kill_point(name: &str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| {
        let own = rustix::process::getpid();
        // A failure to kill oneself would make a crash test pass for the wrong reason.
        rustix::process::kill_process(own, rustix::process::Signal::KILL)
            .expect("a process may signal itself");
        // The signal is delivered before this returns to user code, but the compiler cannot know.
    });
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}
