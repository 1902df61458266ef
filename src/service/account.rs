//! The system user and group that serve forwarders: made, and removed again.

use std::path::Path;

use nix::unistd::{Group, User};

use super::rollback::{Rollback, Undo};
use super::{ACCOUNT, Call, Error};

/// Makes the group and the user as far as they are missing; says whether anything was.
pub(super) fn make(rollback: &mut Rollback) -> Result<bool, Error> {
    let (group, user) = (!group_exists(), !user_exists());
    if group {
        rollback.on_failure(Undo::RemoveGroup);
        make_group()?;
    }
    if user {
        rollback.on_failure(Undo::RemoveUser);
        make_user()?;
    }
    Ok(group || user)
}

/// Removes the user and the group as far as they are there; says whether anything was.
pub(super) fn remove() -> Result<bool, Error> {
    let removed = remove_user()?;
    Ok(remove_group()? || removed)
}

/// Removes the user, and with it the group on systems that tie the two.
pub(super) fn remove_user() -> Result<bool, Error> {
    if !user_exists() {
        return Ok(false);
    }
    shadow_or_busybox(Call::new("userdel", &[ACCOUNT]), Call::new("deluser", &[ACCOUNT]))?;
    Ok(true)
}

/// Removes the group.
pub(super) fn remove_group() -> Result<bool, Error> {
    if !group_exists() {
        return Ok(false);
    }
    shadow_or_busybox(Call::new("groupdel", &[ACCOUNT]), Call::new("delgroup", &[ACCOUNT]))?;
    Ok(true)
}

fn make_group() -> Result<(), Error> {
    shadow_or_busybox(Call::new("groupadd", &["--system", ACCOUNT]), Call::new("addgroup", &["-S", ACCOUNT]))
}

fn make_user() -> Result<(), Error> {
    let shell = login_refused();
    let useradd = ["--system", "--gid", ACCOUNT, "--no-create-home", "--home-dir", HOME, "--shell", shell];
    let adduser = ["-S", "-D", "-H", "-G", ACCOUNT, "-h", HOME, "-s", shell];
    let comment = "ewsbridge TLS bridge";
    shadow_or_busybox(
        Call::new("useradd", &[&useradd[..], &["--comment", comment, ACCOUNT]].concat()),
        Call::new("adduser", &[&adduser[..], &["-g", comment, ACCOUNT]].concat()),
    )
}

/// The commands of shadow-utils, as nearly everywhere; busybox's where those are missing.
fn shadow_or_busybox(shadow: Call, busybox: Call) -> Result<(), Error> {
    let call = if shadow.exists() { shadow } else { busybox };
    call.run().map(drop)
}

fn login_refused() -> &'static str {
    let shells = ["/usr/sbin/nologin", "/sbin/nologin"];
    shells.into_iter().find(|shell| Path::new(shell).exists()).unwrap_or("/bin/false")
}

fn user_exists() -> bool {
    User::from_name(ACCOUNT).ok().flatten().is_some()
}

fn group_exists() -> bool {
    Group::from_name(ACCOUNT).ok().flatten().is_some()
}

/// A folder that doesn't exist: the service has no home.
const HOME: &str = "/nonexistent";
