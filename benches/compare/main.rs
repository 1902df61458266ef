//! Side by side with other proxies.
#![allow(clippy::cast_precision_loss)]
mod checks;
mod floor;
mod load;
mod material;
mod measure;
mod peers;
mod rows;
mod work;

use anyhow::Result;
use peers::Peer;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == floor::RELAY) {
        return floor::run(&args[1], &args[2]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let material = material::Material::new()?;
        let ours = Peer::Ours(env!("CARGO_BIN_EXE_ewsbridge").into());
        let mut all = vec![ours];
        all.extend(Peer::OTHERS);
        for peer in &all {
            println!("{} {}", peer.name(), peer.version()?);
            match checks::check(peer, &material).await {
                Ok(a) => println!("   {}", a.text()),
                Err(e) => println!("   FAILED {e:#}"),
            }
        }
        all.push(Peer::Relay);
        let sizes = if args.first().is_some_and(|a| a == "full") { rows::Sizes::FULL } else { rows::Sizes::QUICK };
        for row in &rows::ROWS {
            if args.len() > 1 && !args.iter().any(|a| a == row.name) {
                continue;
            }
            for peer in &all {
                let began = std::time::Instant::now();
                match work::once(row, peer, &material, &sizes).await {
                    Ok(f) => println!("{:16} {:10} {f:?} in {:.1?}", row.name, peer.name(), began.elapsed()),
                    Err(e) => println!("{:16} {:10} FAILED {e:#}", row.name, peer.name()),
                }
            }
        }
        anyhow::Ok(())
    })
}
