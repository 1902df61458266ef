//! Before anything is measured: every peer does the whole job, or the comparison would be unfair.
//!
//! It verifies the target, resumes sessions on both sides, and speaks the same versions and suites. The
//! last is also looked at on every connection of every row (client.rs and target.rs).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::sleep;

use crate::load::{Client, FULL_RECORD, Target, TargetKind};
use crate::material::{Certificate, Material};
use crate::peers::Peer;
use crate::rows::{ANSWER, REQUEST};

/// What a peer was seen to do.
pub(crate) struct Ability {
    /// Connections to the target that resumed, of those that could.
    pub(crate) resumed_target: (u64, u64),
    /// Connections of a client that resumed, of those that could.
    pub(crate) resumed_client: (u64, u64),
}

impl Ability {
    /// In words for the table.
    pub(crate) fn text(&self) -> String {
        let of = |(resumed, all): (u64, u64)| match resumed {
            0 => "no".to_owned(),
            _ if resumed == all => "yes".to_owned(),
            _ => format!("{resumed} of {all}"),
        };
        format!("resumes with the target: {}; of clients: {}", of(self.resumed_target), of(self.resumed_client))
    }
}

/// Connections of each check.
const VISITS: u64 = 8;

/// Checks a peer with a target of either kind.
///
/// # Errors
/// If it lacks something that it is said to have.
pub(crate) async fn check(peer: &Peer, material: &Material) -> Result<Ability> {
    let mut ability = None;
    for kind in [TargetKind::Tls12, TargetKind::Tls11] {
        refuses_a_stranger(peer, material, kind).await.with_context(|| format!("{kind:?}"))?;
        let seen = resumes(peer, material, kind).await.with_context(|| format!("{kind:?}"))?;
        ability.get_or_insert(seen);
    }
    ability.context("no kind of target")
}

/// No byte of a client may reach a target whose certificate nobody vouches for.
async fn refuses_a_stranger(peer: &Peer, material: &Material, kind: TargetKind) -> Result<()> {
    let target = Target::start(kind, material, Certificate::Stranger, FULL_RECORD).await?;
    let process = peer.start(material, target.address)?;
    let client = Client::new(process.address, material, peer.group(), false)?;
    let answer = async { client.connect().await?.exchange(REQUEST, ANSWER, FULL_RECORD).await };
    if answer.await.is_ok() {
        bail!("it accepts any certificate of the target");
    }
    // The client may hear of it before the target does.
    let mut seen = target.seen();
    for _ in 0..100 {
        // nginx judges the certificate once the handshake is over.
        if seen.refused + seen.connections > 0 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
        seen = target.seen();
    }
    ensure!(seen.answered == 0, "a request reached a target that is not trusted");
    ensure!(seen.refused + seen.connections > 0, "it did not try the target: {}", process.log());
    Ok(())
}

async fn resumes(peer: &Peer, material: &Material, kind: TargetKind) -> Result<Ability> {
    let target = Target::start(kind, material, Certificate::Target, FULL_RECORD).await?;
    let process = peer.start(material, target.address)?;
    let client = Client::new(process.address, material, peer.group(), true)?;
    let mut of_client = 0;
    for nth in 0..VISITS {
        let mut connection = client.connect().await.with_context(|| process.log())?;
        connection.exchange(REQUEST, ANSWER, FULL_RECORD).await.with_context(|| process.log())?;
        if nth > 0 {
            of_client += u64::from(connection.was_resumed());
        }
        connection.close().await?;
    }
    let seen = target.seen();
    ensure!(seen.faults.is_empty(), "{}", seen.faults.join("; "));
    ensure!(seen.connections == VISITS, "{} connections to the target for {VISITS} clients", seen.connections);
    let ability = Ability { resumed_target: (seen.resumed, VISITS - 1), resumed_client: (of_client, VISITS - 1) };
    let wanted = if peer.resumes_target() { VISITS - 1 } else { 0 };
    ensure!((seen.resumed, of_client) == (wanted, VISITS - 1), "{}", ability.text());
    Ok(ability)
}
