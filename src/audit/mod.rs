//! What the holder of the lease does about drift: it finds it, puts approved content back, and says so.

pub mod watch;
