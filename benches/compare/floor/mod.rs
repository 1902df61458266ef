//! The floor: what no bridge can do without. The cryptography of its side ([`crypto`]), plus carrying
//! the same bytes in plain TCP ([`relay`]), which is measured as a process under the very same load.
//! Each floor is the sum of both.

mod crypto;
mod relay;

use anyhow::Result;

pub(crate) use relay::run;

use crate::load::TargetKind;
use crate::rows::{ANSWER, REQUEST, Row, Way, Work};

/// First argument of the program as the plain relay.
pub(crate) const RELAY: &str = "floor-relay";

/// What is to be added to the figures of the plain relay, in the units of the row's lines; nothing
/// for rows of memory, which have no floor.
///
/// # Errors
/// If a primitive fails.
pub(crate) fn cryptography(row: &Row) -> Result<Option<Vec<f64>>> {
    let exchange = || -> Result<f64> {
        Ok(crypto::gcm_once(usize::try_from(REQUEST)?)? + crypto::gcm_once(usize::try_from(ANSWER)?)?)
    };
    let gib = 1_u64 << 30;
    Ok(Some(match (row.work, row.target) {
        (Work::Connections, _) => {
            vec![(crypto::handshakes(row.resumes)? + exchange()?) * 1e3]
        }
        (Work::Bulk(Way::Down), TargetKind::Tls11) => vec![crypto::cbc_to_gcm(gib)?],
        (Work::Bulk(Way::Up), TargetKind::Tls11) => vec![crypto::gcm_to_cbc(gib)?],
        (Work::Bulk(_), _) => vec![crypto::gcm(gib, row.record)?],
        (Work::KeepAlive | Work::Paced, _) => vec![exchange()? * 1e6],
        (Work::FirstByte { delay }, _) => {
            // TCP's round trip and the request's are in the relay's figure; a resumed TLS 1.2 handshake
            // takes one more. What the client and the target compute is left out.
            let least = crypto::handshakes(false)? + delay.unwrap_or_default().as_secs_f64();
            vec![least * 1e3; row.lines.len()]
        }
        (Work::Idle | Work::SlowReader, _) => return Ok(None),
    }))
}
