//! What can be typed after `openrouter-sim`? OpenRouter for this machine alone, without OpenRouter.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use waystation::simulator::{KEY, SCENARIOS, Settings, Simulator};

const AFTER: &str = "\
Any client of OpenRouter works with it: give it the base URL that is printed, and the key sk-or-v1-sim.
Nothing leaves this machine, and nothing costs anything; all models and answers are made up.

Try a fault from inside a chat, or with a header, or with a model:
  [[sim:midstream after=5]]        in the last message
  x-sim-scenario: 429;after=2      as a header
  sim/truncate                     as the model
`openrouter-sim --scenarios` lists them all.

Shape an answer from inside a chat:
  [[sim:words n=500]]  [[sim:say text=\"…\"]]  [[sim:json {…}]]  [[sim:recall]]  [[sim:system]]  [[sim:len]]

Other keys: sk-or-v1-sim-mgmt, -nocredit, -poor, -budget, -daily, -disabled.";

/// Answers as OpenRouter does, on this machine and for nobody else.
#[derive(Debug, Parser)]
#[command(name = "openrouter-sim", version, after_help = AFTER)]
struct Arguments {
    /// Where to listen; 0 takes a port that is free.
    #[arg(long, default_value_t = 8787)]
    port: u16,

    /// The same seed gives the same answers.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Milliseconds until an answer begins; each token then takes a sixteenth of it.
    #[arg(long, default_value_t = 250, value_name = "MS")]
    latency: u64,

    /// Milliseconds until GET /generation knows of an answer.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    generation_delay: u64,

    /// Limit `:free` models as OpenRouter does: 20 requests a minute, and 1,000 a day.
    #[arg(long)]
    enforce_limits: bool,

    /// Have one catalogue entry without prices.
    #[arg(long)]
    broken_entries: bool,

    /// Open /__sim (journal, script, reset, clock) to whoever sends this as x-sim-token.
    #[arg(long, env = "OPENROUTER_SIM_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,

    /// List what can go wrong, and end.
    #[arg(long)]
    scenarios: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.scenarios {
        SCENARIOS.iter().for_each(|(name, what)| println!("{name:<18} {what}"));
        return ExitCode::SUCCESS;
    }
    let settings = Settings {
        seed: arguments.seed,
        ttft: Duration::from_millis(arguments.latency),
        per_token: Duration::from_millis(arguments.latency / 16),
        generation_delay: Duration::from_millis(arguments.generation_delay),
        enforce_limits: arguments.enforce_limits,
        broken_entries: arguments.broken_entries,
        control: arguments.token,
    };
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), arguments.port);
    let simulator = match Simulator::start(settings, address).await {
        Ok(simulator) => simulator,
        Err(why) => {
            eprintln!("openrouter-sim cannot listen on {address}: {why}. Another port: --port 0");
            return ExitCode::FAILURE;
        }
    };
    let base = simulator.base_url();
    println!("{base}\n");
    println!("curl -N {base}/chat/completions -H 'Authorization: Bearer {KEY}' \\");
    println!(
        "  -d '{{\"model\":\"acme/atlas-70b\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'"
    );
    match tokio::signal::ctrl_c().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("openrouter-sim cannot wait for Ctrl-C: {why}");
            ExitCode::FAILURE
        }
    }
}
