//! Where is the program that a command names?
//!
//! It is looked for here and not by the kernel, so that the answer is a sentence, is known when
//! the settings are checked, and does not depend on which directory the child starts in.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::Command;

/// The file to execute; or what is missing.
pub fn find(command: &Command) -> Result<PathBuf, String> {
    let Command { command: name, args, env, cwd } = command;
    if name.is_empty() {
        return Err("`command` is empty; name a program".into());
    }
    if [name].into_iter().chain(args).any(|text| text.contains('\0')) {
        return Err("`command` and `args` may not hold a NUL character".into());
    }
    let cwd = cwd.as_deref().unwrap_or(Path::new("."));
    if !cwd.is_dir() {
        return Err(format!("the working directory {} is none; create it or change `cwd`", cwd.display()));
    }
    let cwd = std::path::absolute(cwd).map_err(|why| format!("the working directory is gone: {why}"))?;
    if name.contains('/') {
        return at_path(name, cwd.join(name));
    }
    let path = env.get("PATH").map(|text| OsString::from(&text.text)).or_else(|| std::env::var_os("PATH"));
    let path = path.unwrap_or_default();
    let places = std::env::split_paths(&path).filter(|place| place.is_absolute());
    let found = places.map(|place| place.join(name)).find(|file| is_executable(file));
    found.ok_or_else(|| {
        format!("the program {name:?} is not on PATH; install it, or give its full path as `command`")
    })
}

fn at_path(name: &str, file: PathBuf) -> Result<PathBuf, String> {
    if !file.exists() {
        Err(format!("the program {name:?} does not exist"))
    } else if !is_executable(&file) {
        Err(format!("{name:?} is not a file that may be executed"))
    } else {
        Ok(file)
    }
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str) -> Command {
        Command { command: name.into(), args: Vec::new(), env: Default::default(), cwd: None }
    }

    #[test]
    fn a_name_is_found_on_the_path() {
        assert!(find(&command("sh")).unwrap().is_absolute());
        let missing = find(&command("no-such-program")).unwrap_err();
        assert!(missing.contains("not on PATH"), "{missing}");
        let mut with_path = command("sh");
        with_path
            .env
            .insert("PATH".into(), crate::settings::Text::Plain("/nowhere".into()).resolve().unwrap());
        assert!(find(&with_path).is_err());
    }

    #[test]
    fn a_path_is_taken_from_the_working_directory() {
        let mut here = command("bin/sh");
        here.cwd = Some("/".into());
        assert_eq!(find(&here).unwrap(), Path::new("/bin/sh"));
        here.cwd = Some("/no/such/directory".into());
        assert!(find(&here).unwrap_err().contains("working directory"));
    }

    #[test]
    fn what_cannot_be_executed_is_said() {
        assert!(find(&command("")).unwrap_err().contains("empty"));
        assert!(find(&command("/no/such/program")).unwrap_err().contains("does not exist"));
        assert!(find(&command("/etc/passwd")).unwrap_err().contains("executed"));
        assert!(find(&command("s\0h")).unwrap_err().contains("NUL"));
    }
}
