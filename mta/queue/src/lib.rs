//! Queue layout and the durable injector qmail-queue.
