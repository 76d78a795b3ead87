//! The directory into a file, and out of one, while no daemon need run here.

use std::io::{Read, Write};
use std::path::Path;

use segstored::config::{Config, DirectoryAt};
use segstored::directory::document::Document;
use segstored::directory::{Directory, DirectoryError};
use segstored::peers::Channels;
use segstored::peers::tls::Identity;

use crate::run::{Failure, directory_file, lock, open_directory};

/// Writes the directory that is configured into `file`; `-` is standard output.
pub(crate) fn export(config: &Config, file: &Path) -> Result<(), Failure> {
    if config.directory == DirectoryAt::Own && !directory_file(config).exists() {
        let why = "there is no directory: is `data_dir` the daemon's, and is it mounted?";
        return Err(format!("{}: {why} Nothing was exported", config.data_dir.display()).into());
    }
    let document = in_directory(config, async |directory| Document::export(directory).await)?;
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    let written = if file == Path::new("-") { std::io::stdout().write_all(&text) } else { std::fs::write(file, &text) };
    written.map_err(|error| format!("{}: {error}", file.display()))?;
    eprintln!("segstored: {} entries exported", document.count());
    Ok(())
}

/// Writes what was exported into the directory that is configured, where there is none so far.
pub(crate) fn import(config: &Config, file: &Path) -> Result<(), Failure> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut text))
    };
    read.map_err(|error| format!("{}: {error}", file.display()))?;
    let document = Document::parse(&text).map_err(|why| format!("{}: {why}", file.display()))?;
    in_directory(config, async |directory| document.import(directory).await)?;
    eprintln!("segstored: {} entries imported", document.count());
    Ok(())
}

fn in_directory<T>(
    config: &Config,
    work: impl AsyncFnOnce(&dyn Directory) -> Result<T, DirectoryError>,
) -> Result<T, Failure> {
    // Nothing changes meanwhile: whoever would change a directory in a file has the same lock.
    let is_own = config.directory == DirectoryAt::Own;
    let locked = is_own.then(|| lock(&config.data_dir)).transpose();
    let _locked = locked.map_err(|error| format!("{error}. On another node it can be exported meanwhile"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let secret = Identity::from_file(&config.secret_file)?;
        let directory = open_directory(config, &Channels::new(secret))?;
        Ok(work(&*directory).await?)
    })
}
