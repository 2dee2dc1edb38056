//! What does the gateway cost before the first call?
//!
//! Two starts of their own: one with five live backends, left alone until it rests, and one with
//! twenty dead backends, timed from the start of the process to the first list in a client's hands.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    call::TOOLS,
    load::Client,
    subject::{Lab, Subject, free_port},
};

const LIVE: usize = 5;
const DEAD: usize = 20;
const STARTS: usize = 3;

/// Resident memory with five backends, in megabytes.
pub async fn memory(lab: &Lab, backend: &Subject) -> Result<f64, String> {
    let url = format!("http://{}/mcp", backend.address);
    let backends: Vec<_> = (1..=LIVE).map(|number| (format!("bench{number}"), url.clone())).collect();
    let gateway = lab.gateway("gateway-memory", &backends, LIVE * TOOLS).await?;
    sleep(Duration::from_secs(1)).await;
    Ok(gateway.watched.memory())
}

/// Milliseconds from the start of the process to the first list, once for each start.
pub async fn first_list(lab: &Lab) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    for start in 1..=STARTS {
        let mut backends = Vec::new();
        for number in 1..=DEAD {
            backends.push((format!("dead{number}"), format!("http://127.0.0.1:{}/mcp", free_port()?)));
        }
        let begin = Instant::now();
        let gateway = lab.spawn_gateway(&format!("gateway-dead-{start}"), &backends)?;
        loop {
            match Client::list(gateway.target()).await {
                Ok(_) => break,
                Err(error) if begin.elapsed() > lab.patience => {
                    return Err(format!("the gateway with dead backends gives no list: {error}"));
                }
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}
