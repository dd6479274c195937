//! qmail-send, todo-proc, qmail-clean and the queue tools.
