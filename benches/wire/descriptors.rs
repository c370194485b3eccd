//! The limit of open files, which a thousand connections may exceed.
//!
//! std has no call for it, but every shell has: so the shell is asked, and it
//! starts the bench again under a higher limit.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::Result;

/// In the environment of a bench that was started again, so that it is once only.
const RAISED: &str = "KVS_BENCH_LIMIT_RAISED";

/// The descriptors that this process, and each that it starts, may have open.
pub(crate) fn limit() -> Result<u64> {
    let output = Command::new("sh").args(["-c", "ulimit -n"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    // The other thing it may say is "unlimited".
    Ok(text.trim().parse().unwrap_or(u64::MAX))
}

/// Starts the bench again in place of this process under a limit of `needed`,
/// where the limit is lower. It stays as it is where the system does not allow
/// more.
pub(crate) fn raise(needed: u64) -> Result<()> {
    if limit()? >= needed || std::env::var_os(RAISED).is_some() {
        return Ok(());
    }
    let script = format!("ulimit -n {needed} 2>/dev/null; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(shell.env(RAISED, "yes").exec().into())
}
