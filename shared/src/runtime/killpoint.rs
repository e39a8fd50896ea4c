//! Kill points: named places at which a crash test can end this process as `kill -9` would.
//!
//! Without the feature `failpoints` a kill point compiles to nothing, and `make check` proves that release builds do not
//! have the feature. With it, `FAILPOINTS='relay.after_ack=return'` arms one, in the syntax of the crate `fail`:
//! `3*off->return` skips three passes.

/// Reads `FAILPOINTS`. Call it once, at the start of `main`, and keep the value for as long as kill points should fire.
#[cfg(feature = "failpoints")]
pub fn arm() -> impl Sized {
    fail::FailScenario::setup()
}

/// Does nothing, because the feature `failpoints` is off.
#[cfg(not(feature = "failpoints"))]
pub fn arm() -> impl Sized {}

/// Ends the process without any clean-up if the point `name` is armed.
pub fn kill_point(name: &str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| {
        let own = rustix::process::getpid();
        // If the signal failed, a crash test could pass for the wrong reason.
        rustix::process::kill_process(own, rustix::process::Signal::KILL)
            .expect("a process may signal itself");
        // The signal arrives before the call returns, but the compiler cannot know that.
    });
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}
