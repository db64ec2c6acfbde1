//! Git's protocol over HTTP and ssh and repositories on this machine, on top of libgit2's object store.
//!
//! libgit2's own transports are not compiled in: they can't tell why a fetch failed, can't be stopped, and carry on
//! with stale refs. Its pack indexer and its object store do the work on objects.

pub mod advertisement;
pub mod client;
pub mod fetch;
pub mod http;
pub mod local;
pub mod pack;
pub mod packets;
pub mod pktline;
mod reason;
pub mod ssh;

use std::sync::Once;

use git2::ConfigLevel;

/// Cuts libgit2 off from the configuration of the machine and its users. Call it before anything else uses libgit2.
///
/// The check of a repository's owner is switched off with it: it protects from hooks and configured commands, and
/// neither is ever run here, while a mounted repository usually belongs to another user.
pub fn isolate() {
    static ISOLATED: Once = Once::new();
    ISOLATED.call_once(|| {
        // Parsed trees are kept by the cache of sources; libgit2 would keep their bytes beside them.
        git2::opts::enable_caching(false);
        for level in [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global] {
            #[expect(unsafe_code, reason = "git2 offers no safe way; called once, before libgit2 is used")]
            // SAFETY: the search paths are global state without a lock; `Once` and the contract above keep others out.
            let result = unsafe { git2::opts::set_search_path(level, "") };
            // It fails for an unknown level only.
            debug_assert!(result.is_ok(), "{result:?}");
        }
        #[expect(unsafe_code, reason = "git2 offers no safe way; called once, before libgit2 is used")]
        // SAFETY: as above.
        let result = unsafe { git2::opts::set_verify_owner_validation(false) };
        debug_assert!(result.is_ok(), "{result:?}");
    });
}
