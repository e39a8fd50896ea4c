//! The attempts this process is carrying, from the claim's commit until their outcome is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use shared::domain::refund::AttemptId;

use crate::store::GiveBack;

/// The progress of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for a call permit; this process has not called the gateway for it. `unsent`: nor has any other.
    Waiting {
        unsent: bool,
    },
    Called,
}

/// See the module. A scan does not take over these attempts.
#[derive(Debug)]
pub struct OpenAttempts {
    stages: Mutex<HashMap<AttemptId, Stage>>,
    gauge: IntGauge,
}

/// An attempt at the gateway, or whose outcome is being written. It is closed when this is dropped, also by a panic.
#[derive(Debug)]
pub struct Called<'a> {
    open: &'a OpenAttempts,
    id: AttemptId,
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        self.open.remove(self.id);
    }
}

impl OpenAttempts {
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            stages: Mutex::default(),
            gauge,
        }
    }

    pub fn count(&self) -> usize {
        self.stages().len()
    }

    pub fn contains(&self, id: AttemptId) -> bool {
        self.stages().contains_key(&id)
    }

    /// `false` if this process carries it already.
    pub fn add(&self, id: AttemptId, unsent: bool) -> bool {
        self.change(|stages| match stages.entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Stage::Waiting { unsent });
                true
            }
            Entry::Occupied(_) => false,
        })
    }

    /// From now on the gateway may be called for it.
    pub fn call(&self, id: AttemptId) -> Called<'_> {
        self.change(|stages| stages.insert(id, Stage::Called));
        Called { open: self, id }
    }

    pub fn remove(&self, id: AttemptId) {
        self.change(|stages| stages.remove(&id));
    }

    /// The attempts that this process has not called the gateway for, ascending.
    pub fn waiting(&self) -> Vec<GiveBack> {
        let stages = self.stages();
        let waiting = |(id, stage): (&AttemptId, &Stage)| match stage {
            Stage::Waiting { unsent } => Some(GiveBack {
                id: *id,
                unsent: *unsent,
            }),
            Stage::Called => None,
        };
        let mut waiting: Vec<GiveBack> = stages.iter().filter_map(waiting).collect();
        waiting.sort_unstable();
        waiting
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<AttemptId, Stage>) -> T) -> T {
        let mut stages = self.stages();
        let changed = change(&mut stages);
        self.gauge
            .set(i64::try_from(stages.len()).unwrap_or(i64::MAX));
        changed
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<AttemptId, Stage>> {
        // Every change is one call on the map, so a panic elsewhere leaves it whole.
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
