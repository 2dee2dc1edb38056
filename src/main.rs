//! Starts the gateway: argv to exit code.

use std::process::ExitCode;

use waystation::{
    app,
    backend::guardian,
    config::{Config, Environment},
    engine::Waystation,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("guardian") {
        return guardian::run();
    }
    let path =
        std::env::args().skip_while(|argument| argument != "--config").nth(1).map(std::path::PathBuf::from);
    let (config, _) = match Config::load(path.as_deref(), &Environment::of_process()) {
        Ok(loaded) => loaded,
        Err(complaints) => {
            eprintln!("{}", complaints.drawn(false));
            return ExitCode::from(78);
        }
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(&config.log.level).init();
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    runtime.block_on(async {
        let sockets = app::Sockets::bind(&config.listen).await;
        let gateway = Waystation::from_config(config).await;
        match (sockets, gateway) {
            (Ok(sockets), Ok(gateway)) => {
                let _ = app::run(gateway, sockets).await;
                ExitCode::SUCCESS
            }
            (sockets, gateway) => {
                eprintln!("{:?} {:?}", sockets.err(), gateway.err());
                ExitCode::FAILURE
            }
        }
    })
}
