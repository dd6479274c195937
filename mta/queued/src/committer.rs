//! Everything that waits goes to the disk together.

use std::sync::mpsc::{Receiver, SyncSender};

use mta_queue::inject::batch::Committer;
use mta_queue::inject::{Envelope, Failure};
use mta_queue::layout::{MessageId, Queue};

/// Messages of one batch at most: more would only make the first of them wait.
const BATCH_MAX: usize = 256;

/// A complete message that waits for the disk.
#[derive(Debug)]
pub struct Job<'q> {
    /// Message and envelope, handed to the kernel.
    pub envelope: Envelope<'q>,
    /// Where the answer goes.
    pub answer: SyncSender<Result<MessageId, Failure>>,
}

/// Commits what comes until nobody can send any more. While a batch is on its way to the disk, the next gathers.
pub fn run<'q>(queue: &'q Queue, committer: &Committer<'q>, jobs: &Receiver<Job<'q>>) {
    while let Ok(first) = jobs.recv() {
        let batch: Vec<Job<'q>> = std::iter::once(first).chain(jobs.try_iter()).take(BATCH_MAX).collect();
        let (envelopes, waiting): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|j| (j.envelope, j.answer)).unzip();
        let answers = committer.commit(envelopes);
        queue.pull_trigger();
        for (answer, client) in answers.into_iter().zip(waiting) {
            // A client that is gone has its message in the queue all the same.
            let _ = client.send(answer);
        }
    }
}
