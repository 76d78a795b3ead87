//! `segstored`: the daemon of a node.
#![forbid(unsafe_code)]

mod run;
mod transfer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_mangen::Man;
use segstored::config::{Config, DirectoryAt, LogFormat, Settings};
use segstored::peers::tls::Identity;
use tracing_subscriber::EnvFilter;

/// The checkpoint service's daemon: keeps replicas of segments in memory, and serves the applications of this node
///
/// Every key of the configuration file is also a flag and an environment variable SEGSTORED_<KEY>; a flag beats the environment, the
/// environment beats the file.
///
/// Exit codes: 0 stopped as asked, 1 something failed while running, 2 wrong usage or configuration.
#[derive(Parser, Debug)]
#[command(version, about, args_override_self = true)]
struct Arguments {
    /// Configuration file (TOML)
    #[arg(long, env = "SEGSTORED_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the secret's file, say as TOML what is in effect, and stop
    #[arg(long)]
    check_config: bool,
    /// Write the cluster's directory into a file (`-`: standard output), and stop; see `segctl directory`
    #[arg(long, value_name = "FILE", conflicts_with = "import_directory")]
    export_directory: Option<PathBuf>,
    /// Make the cluster's directory, where there is none so far, of such a file (`-`: standard input), and stop
    #[arg(long, value_name = "FILE")]
    import_directory: Option<PathBuf>,
    /// Write the manual page into a directory, and stop
    #[arg(long, value_name = "DIRECTORY")]
    man: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

fn main() -> ExitCode {
    #[cfg(feature = "sabotage")]
    segstore_core::rule::leave_out_what_the_environment_says();
    let arguments = Arguments::parse();
    if let Some(directory) = arguments.man {
        return man(&directory);
    }
    let config = match Config::load(arguments.config.as_deref(), arguments.settings) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("segstored: the configuration is wrong:");
            problems.iter().for_each(|problem| eprintln!("  {problem}"));
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        print!("{}", config.to_toml());
        if let Err(error) = Identity::from_file(&config.secret_file) {
            eprintln!("segstored: secret_file: {error}");
            return ExitCode::from(2);
        }
        if let DirectoryAt::Etcd(etcd) = &config.directory
            && let Err(error) = run::open_etcd(etcd)
        {
            eprintln!("segstored: {error}");
            return ExitCode::from(2);
        }
        return ExitCode::SUCCESS;
    }
    let transfer = match (&arguments.export_directory, &arguments.import_directory) {
        (Some(file), _) => Some(transfer::export(&config, file)),
        (None, Some(file)) => Some(transfer::import(&config, file)),
        (None, None) => None,
    };
    if let Some(done) = transfer {
        return done.map_or_else(
            |error| {
                eprintln!("segstored: {error}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    if let Err(error) = log(&config) {
        eprintln!("segstored: log: {error}");
        return ExitCode::from(2);
    }
    match run::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn man(directory: &Path) -> ExitCode {
    let page = Man::new(Arguments::command()).section("8");
    match std::fs::create_dir_all(directory).and_then(|()| page.generate_to(directory)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segstored: {}: {error}", directory.display());
            ExitCode::from(2)
        }
    }
}

fn log(config: &Config) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter: EnvFilter = config.log.parse()?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
}
