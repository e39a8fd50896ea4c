//! The three programs: started, watched while the story goes on, and quoted when something fails.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use e2e::program::{Env, Program};

use crate::stage::Stage;

const POLL: Duration = Duration::from_millis(100);

/// Why a step of the story probably failed, and whose log explains it.
#[derive(Debug)]
pub(crate) struct LikelyCause {
    pub(crate) program: &'static str,
    pub(crate) cause: &'static str,
}

impl fmt::Display for LikelyCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause)
    }
}

pub(crate) struct Programs {
    env: Env,
    logs: PathBuf,
    running: Vec<Program>,
}

impl Programs {
    pub(crate) fn new(stage: &Stage) -> Self {
        Self {
            env: stage.env.clone(),
            logs: stage.logs.clone(),
            running: Vec::new(),
        }
    }

    pub(crate) async fn start(&mut self, name: &'static str) -> anyhow::Result<&Program> {
        let log = self.log(name);
        let program = Program::start_logged(name, &self.env, &log)
            .await
            .with_context(|| format!("see {}", log.display()))?;
        self.running.push(program);
        self.running.last().context("pushed above")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Program> {
        self.running.iter()
    }

    /// Does `work` while all started programs run.
    ///
    /// # Errors
    /// `work` failed, or a program ended; with the end of the log that explains it.
    pub(crate) async fn watch<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            done = work => done.map_err(|error| self.with_log(error)),
            ended = Self::first_end(&mut self.running) => {
                let name = ended?;
                bail!("{name} has ended by itself.\n{}", self.end_of_log(name))
            }
        }
    }

    async fn first_end(running: &mut [Program]) -> anyhow::Result<&'static str> {
        loop {
            for program in running.iter_mut() {
                if program.has_ended()? {
                    return Ok(program.name());
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn with_log(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(likely) = error.downcast_ref::<LikelyCause>() else {
            return error;
        };
        anyhow!(
            "{}\nThe likely cause: {likely}.\n{}",
            error.root_cause(),
            self.end_of_log(likely.program)
        )
    }

    fn end_of_log(&self, name: &str) -> String {
        let lines = self
            .running
            .iter()
            .find(|program| program.name() == name)
            .map_or_else(|| "(not started)".to_owned(), Program::last_lines);
        format!("The end of {}:\n{lines}", self.log(name).display())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}
