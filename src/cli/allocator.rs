//! What the C library's allocator is told before the daemon begins.

/// Blocks of this size and more are mapped by themselves, and given back when they are freed.
const MAPPED_BYTES: i32 = 128 * 1024;
/// So much of the end of the heap may lie idle.
const IDLE_BYTES: i32 = 128 * 1024;
/// Two threads work, others render for a moment: each has an arena of its own by default, with holes of its own.
const ARENAS: i32 = 2;

/// Prefers little memory to the last bit of speed: what lives as long as its application is allocated between what a render
/// needs for a moment, and the holes that this leaves were a sixth of all. To be called before there is another thread.
pub fn prefer_little_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in
        [(libc::M_ARENA_MAX, ARENAS), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES), (libc::M_TRIM_THRESHOLD, IDLE_BYTES)]
    {
        #[expect(unsafe_code, reason = "the allocator has no other face; nobody allocates beside this thread")]
        // SAFETY: `mallopt` takes any parameter and any value, and refuses what it does not know.
        let taken = unsafe { libc::mallopt(parameter, value) } == 1;
        if !taken {
            tracing::debug!(parameter, value, "the allocator stays as it was");
        }
    }
}
