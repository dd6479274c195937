//! Wire protocol of nssd and inlookup, and its client.
