//! Git's protocol over HTTP and repositories on this machine, on top of libgit2's object store.

pub mod pktline;
