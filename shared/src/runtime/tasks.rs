//! Named tasks with one order of stopping. `tasks/repeat.rs` has work that repeats, back-off, and outages that are logged
//! once.

mod repeat;

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant as TokioInstant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::repeat::{Backoff, Every, Outage, Rarely, chain, every};

/// Why a program ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("the {0} ended although nothing stopped it")]
    Ended(&'static str),
    #[error("the {0} panicked")]
    Panicked(&'static str),
    #[error("the {name} failed")]
    Failed {
        name: &'static str,
        source: Box<dyn Error + Send + Sync>,
    },
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// A stage may take this long to end even if another one has used up the drain.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The tasks of a program, in stages. Stages stop in the reverse order of their creation, each only when the one after
/// it has ended: what was started first is there until the end.
#[derive(Debug, Default)]
pub struct Tasks {
    stages: Vec<Stage>,
    early_end: CancellationToken,
}

/// Tasks that stop together.
#[derive(Debug, Default)]
pub struct Stage {
    stop: CancellationToken,
    tasks: JoinSet<Outcome>,
    names: HashMap<Id, &'static str>,
}

/// What a task of [`Stage::spawn_fallible`] returned.
#[derive(Debug)]
pub struct Finished<T>(Arc<Mutex<Option<T>>>);

impl<T> Finished<T> {
    /// `None` if the task failed or has not ended.
    pub fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when a task has ended early: then no stage should wait before it stops.
    pub fn ended_early(&self) -> CancellationToken {
        self.early_end.clone()
    }

    /// A new stage, which stops before all earlier ones.
    pub fn stage(&mut self) -> &mut Stage {
        self.stages.push(Stage::default());
        self.stages.last_mut().expect("just pushed")
    }

    /// Waits until `stop`, or until a task ends early, which stops all others. Then stops stage by stage, all within
    /// `drain`. Returns the names of the tasks that were still running at the end of it; they are left to run.
    ///
    /// # Errors
    /// A task ended early, or failed while stopping: the process should end, loudly.
    pub async fn run(
        mut self,
        stop: &CancellationToken,
        drain: Duration,
    ) -> Result<Vec<&'static str>, TaskError> {
        let early = tokio::select! {
            // A stopped program's tasks end too, which is no early end.
            biased;
            () = stop.cancelled() => None,
            error = self.first_end() => Some(error),
        };
        if let Some(error) = &early {
            tracing::error!(error = chain(error), "a task ended early: stopping");
            self.early_end.cancel();
            stop.cancel();
        }
        let deadline = TokioInstant::now() + drain;
        let (mut failure, mut late) = (early, Vec::new());
        for stage in self.stages.into_iter().rev() {
            let deadline = deadline.max(TokioInstant::now() + LAST_MOMENT);
            late.extend(stage.finish(deadline, &mut failure).await);
        }
        failure.map_or(Ok(late), Err)
    }

    async fn first_end(&mut self) -> TaskError {
        let ends = self
            .stages
            .iter_mut()
            .filter(|stage| !stage.tasks.is_empty());
        let ends: Vec<_> = ends.map(|stage| Box::pin(stage.next_end())).collect();
        if ends.is_empty() {
            return std::future::pending().await;
        }
        match select_all(ends).await.0 {
            Some((_, Err(error))) => error,
            Some((name, Ok(()))) => TaskError::Ended(name),
            None => TaskError::Ended("stage"),
        }
    }
}

impl Stage {
    /// Cancelled when this stage has to stop.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task that runs until the stage stops.
    pub fn spawn(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.start(name, async {
            future.await;
            Ok(())
        });
    }

    /// As [`Self::spawn`], for a task that can fail or has a result.
    pub fn spawn_fallible<T, E>(
        &mut self,
        name: &'static str,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Finished<T>
    where
        T: Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let finished = Arc::new(Mutex::new(None));
        let result = Arc::clone(&finished);
        self.start(name, async move {
            let value = future.await.map_err(Into::into)?;
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            Ok(())
        });
        Finished(finished)
    }

    fn start(
        &mut self,
        name: &'static str,
        future: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let started = self.tasks.spawn(future);
        self.names.insert(started.id(), name);
    }

    /// The next task that ends; `None` when all have.
    async fn next_end(&mut self) -> Option<(&'static str, Result<(), TaskError>)> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = self.names.remove(&id).unwrap_or("task");
        let result = match ended {
            Ok((_, Ok(()))) => Ok(()),
            Ok((_, Err(source))) => Err(TaskError::Failed { name, source }),
            Err(_) => Err(TaskError::Panicked(name)),
        };
        Some((name, result))
    }

    /// Stops the tasks and waits for them. Returns the names of those that still run at the deadline. The first failure of
    /// the program is kept.
    async fn finish(
        mut self,
        deadline: TokioInstant,
        failure: &mut Option<TaskError>,
    ) -> Vec<&'static str> {
        self.stop.cancel();
        while let Ok(ended) = timeout_at(deadline, self.next_end()).await {
            match ended {
                Some((_, Ok(()))) => {}
                Some((_, Err(error))) => {
                    tracing::error!(error = chain(&error), "a task failed while stopping");
                    failure.get_or_insert(error);
                }
                None => return Vec::new(),
            }
        }
        self.tasks.detach_all();
        self.names.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_stop_in_reverse_order() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Tasks::new();
        for name in ["first", "second"] {
            let stage = tasks.stage();
            let (stop, order) = (stage.stop(), Arc::clone(&order));
            stage.spawn(name, async move {
                stop.cancelled().await;
                order.lock().expect("not poisoned").push(name);
            });
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let late = tasks.run(&stop, Duration::from_secs(60)).await;
        assert!(late.expect("no early end").is_empty());
        assert_eq!(*order.lock().expect("not poisoned"), ["second", "first"]);
    }

    #[tokio::test]
    async fn an_early_end_stops_the_others_and_is_the_error() {
        let mut tasks = Tasks::new();
        let stage = tasks.stage();
        let stop = stage.stop();
        stage.spawn("patient task", async move { stop.cancelled().await });
        stage.spawn("early task", async {});
        let (stop, early) = (CancellationToken::new(), tasks.ended_early());
        let ended = tasks.run(&stop, Duration::from_secs(60)).await;
        assert!(early.is_cancelled());
        assert!(
            matches!(ended, Err(TaskError::Ended("early task"))),
            "{ended:?}"
        );
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_failure_keeps_its_cause_and_a_panic_its_name() {
        let mut tasks = Tasks::new();
        let failing = async { Err::<(), _>(std::io::Error::other("cause")) };
        tasks.stage().spawn_fallible("failing task", failing);
        let ended = tasks.run(&CancellationToken::new(), Duration::ZERO).await;
        assert_eq!(
            chain(&ended.expect_err("it failed")),
            "the failing task failed: cause"
        );
        let mut tasks = Tasks::new();
        tasks
            .stage()
            .spawn("panicking task", async { panic!("on purpose") });
        let ended = tasks.run(&CancellationToken::new(), Duration::ZERO).await;
        assert!(
            matches!(ended, Err(TaskError::Panicked("panicking task"))),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn a_failure_while_stopping_is_the_error() {
        let mut tasks = Tasks::new();
        let stage = tasks.stage();
        let stopping = stage.stop();
        stage.spawn_fallible("failing task", async move {
            stopping.cancelled().await;
            Err::<(), _>(std::io::Error::other("cause"))
        });
        let stop = CancellationToken::new();
        stop.cancel();
        let ended = tasks.run(&stop, Duration::from_secs(60)).await;
        assert!(matches!(ended, Err(TaskError::Failed { .. })), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_outlives_the_drain_is_named() {
        let mut tasks = Tasks::new();
        tasks.stage().spawn("endless task", std::future::pending());
        let stop = CancellationToken::new();
        stop.cancel();
        let late = tasks.run(&stop, Duration::from_secs(5)).await;
        assert_eq!(late.expect("no early end"), ["endless task"]);
    }
}
