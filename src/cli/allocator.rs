//! What glibc's allocator is told before the daemon begins; any other is left as it is.

/// Prefers little memory to the last bit of speed: what lives as long as its application is allocated between what a render
/// needs for a moment, and the holes that this leaves were a sixth of all. To be called before there is another thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn prefer_little_memory() {
    /// Two threads work, others render for a moment: each has an arena of its own by default, with holes of its own.
    const ARENAS: i32 = 2;
    /// Larger blocks are mapped by themselves, and given back when they are freed. It is the default, which would grow with
    /// what is freed unless it is set.
    const MAPPED_BYTES: i32 = 128 * 1024;
    /// So much of the end of the heap may lie idle; the default, which would grow as well.
    const IDLE_BYTES: i32 = 128 * 1024;
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

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn prefer_little_memory() {}
