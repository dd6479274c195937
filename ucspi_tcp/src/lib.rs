//! tcpserver and friends.
