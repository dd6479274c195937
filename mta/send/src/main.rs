//! One executable for the sending side of the queue; the name it is started under says which program.

program::main!(
    "qmail-send",
    [
        mta_send::send::PROGRAM,
        mta_send::todo::PROGRAM,
        mta_send::clean::PROGRAM,
        mta_send::queue_fix::PROGRAM,
        mta_send::views::QREAD_PROGRAM,
        mta_send::views::QSTAT_PROGRAM,
    ]
);
