//! Items that arrive one by one and are written together.
//!
//! The items that queue up while one batch is written form the next, so an idle system adds no wait and a busy one
//! writes large batches.

use tokio::sync::{mpsc, oneshot};

/// Hands items in; the worker ends when the last clone is dropped.
#[derive(Debug)]
pub struct Batcher<T, R> {
    queue: mpsc::Sender<(T, oneshot::Sender<R>)>,
}

/// The worker's end.
#[derive(Debug)]
pub struct BatchQueue<T, R> {
    items: mpsc::Receiver<(T, oneshot::Sender<R>)>,
}

/// Both ends of a queue that holds `capacity` items.
pub fn batcher<T, R>(capacity: usize) -> (Batcher<T, R>, BatchQueue<T, R>) {
    let (queue, items) = mpsc::channel(capacity);
    (Batcher { queue }, BatchQueue { items })
}

impl<T, R> Batcher<T, R> {
    /// Waits until the item was written with its batch; `None` if the worker has ended.
    pub async fn write(&self, item: T) -> Option<R> {
        let (reply, result) = oneshot::channel();
        self.queue.send((item, reply)).await.ok()?;
        result.await.ok()
    }
}

impl<T, R> BatchQueue<T, R> {
    /// Writes batches of at most `max` until every sender is dropped. `write` returns one result per item, in order.
    pub async fn serve<F, Fut>(mut self, max: usize, write: F)
    where
        F: Fn(Vec<T>) -> Fut,
        Fut: Future<Output = Vec<R>>,
    {
        let mut waiting = Vec::with_capacity(max);
        while self.items.recv_many(&mut waiting, max).await > 0 {
            let (items, replies): (Vec<T>, Vec<_>) = waiting.drain(..).unzip();
            for (reply, result) in replies.into_iter().zip(write(items).await) {
                // It fails if the caller has given up at the drain deadline.
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
    async fn queued_items_are_written_together_and_get_their_results_in_order() {
        let (batcher, queue) = batcher::<u32, u32>(100);
        let batcher = Arc::new(batcher);
        let calls: Vec<_> = (0..25)
            .map(|n| {
                let batcher = Arc::clone(&batcher);
                tokio::spawn(async move { batcher.write(n).await })
            })
            .collect();
        drop(batcher);
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
