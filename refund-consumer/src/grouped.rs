//! Items that arrive one by one and are written together.
//!
//! Whatever queues up while one group is being written forms the next, so an idle system adds no wait and a busy one
//! writes large groups.

use tokio::sync::{mpsc, oneshot};

/// The way in; the worker ends when the last clone is dropped.
#[derive(Debug)]
pub struct Grouped<T, R> {
    queue: mpsc::Sender<(T, oneshot::Sender<R>)>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Queue<T, R> {
    items: mpsc::Receiver<(T, oneshot::Sender<R>)>,
}

/// Both ends of a queue that holds `capacity` items.
pub fn grouped<T, R>(capacity: usize) -> (Grouped<T, R>, Queue<T, R>) {
    let (queue, items) = mpsc::channel(capacity);
    (Grouped { queue }, Queue { items })
}

impl<T, R> Grouped<T, R> {
    /// Waits until the item was written with its group; `None` when the worker has ended.
    pub async fn write(&self, item: T) -> Option<R> {
        let (reply, answer) = oneshot::channel();
        self.queue.send((item, reply)).await.ok()?;
        answer.await.ok()
    }
}

impl<T, R> Queue<T, R> {
    /// Writes groups of at most `max` until every sender is gone. `write` answers one result per item, in order.
    pub async fn serve<F, Fut>(mut self, max: usize, write: F)
    where
        F: Fn(Vec<T>) -> Fut,
        Fut: Future<Output = Vec<R>>,
    {
        let mut waiting = Vec::with_capacity(max);
        while self.items.recv_many(&mut waiting, max).await > 0 {
            let (items, replies): (Vec<T>, Vec<_>) = waiting.drain(..).unzip();
            for (reply, result) in replies.into_iter().zip(write(items).await) {
                // Nobody waits any more: the drain deadline has passed.
                let _ = reply.send(result);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn what_queues_up_is_written_together_and_answered_in_order() {
        let (grouped, queue) = grouped::<u32, u32>(100);
        let grouped = Arc::new(grouped);
        let calls: Vec<_> = (0..25)
            .map(|n| {
                let grouped = Arc::clone(&grouped);
                tokio::spawn(async move { grouped.write(n).await })
            })
            .collect();
        drop(grouped);
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let worker = tokio::spawn(queue.serve(10, move |items: Vec<u32>| {
            seen.lock().expect("not poisoned").push(items.len());
            async move { items.into_iter().map(|n| n * 2).collect() }
        }));
        for (n, call) in (0..).zip(calls) {
            assert_eq!(call.await.expect("no panic"), Some(n * 2));
        }
        worker.await.expect("ends with its senders");
        let sizes = sizes.lock().expect("not poisoned").clone();
        assert_eq!(sizes.iter().sum::<usize>(), 25);
        assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
        assert!(sizes.len() < 25, "{sizes:?}");
    }
}
