//! The command line.

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use crate::{failure::Failure, help};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Bowerbird fetches and keeps: a URL goes in, a verified object comes out.

usage: bowerbird [--config FILE] <command> [options]

  up        everything in one process; starts its own PostgreSQL, NATS server and object store
              --data-dir FOLDER      where all of it is kept (default: data_dir, ./data)
              --listen IP            make API and object store reachable at this address, for example 0.0.0.0
              --public-host NAME     the name that links are made for
  gateway   the REST API alone
  actors    the work alone
  store     the embedded object store alone
  migrate   bring the database up to date
  admin create --name NAME
            make an account with the role `admin`; the password is the first line of standard input, or is
            generated and printed when that is a terminal or empty
  rebuild-statistics
            count the statistics anew from the recorded events, while everything runs
  rebuild-streams
            publish again what the stream of events should hold, while everything runs
  config show
            print the effective settings, secrets hidden

  --config FILE   settings file (default: ./bowerbird.toml if it is there); then BOWERBIRD__SECTION__KEY
  --version       print the version
  --help          print this; after a command, what that command does and which settings it uses

exit codes: 0 done, 64 wrong command line or settings, 69 something needed is not available, 70 gave up, 130 interrupted twice
";

/// One run of the executable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The settings file that was named.
    pub(crate) config: Option<PathBuf>,
    /// What to do.
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print this.
    Help(&'static str),
    Version,
    Up(UpOptions),
    Gateway,
    Actors,
    Store,
    Migrate,
    AdminCreate {
        name: String,
    },
    RebuildStatistics,
    RebuildStreams,
    ConfigShow,
}

/// Options of `up`, which win over the settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct UpOptions {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) listen: Option<IpAddr>,
    pub(crate) public_host: Option<String>,
}

/// Parse the words after the program's name.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, Failure> {
    let mut words = Words { rest: words.into_iter().collect::<Vec<_>>().into_iter() };
    let mut config = None;
    let command = loop {
        let Some(word) = words.next()? else {
            return Err(refuse("no command is given"));
        };
        match word.as_str() {
            "--help" | "-h" => break Command::Help(HELP),
            "help" => break Command::Help(words.page(None)),
            command if words.ask_for_help() => {
                let page = words.page(Some(command));
                if page == HELP && !HELP.contains(&format!("\n  {command} ")) {
                    return Err(refuse(&format!("`{command}` is not a command")));
                }
                break Command::Help(page);
            }
            "--version" | "-V" | "version" => break Command::Version,
            "--config" => config = Some(PathBuf::from(words.value("--config")?)),
            "up" => break Command::Up(up(&mut words, &mut config)?),
            "gateway" => break words.end(Command::Gateway, &mut config)?,
            "actors" => break words.end(Command::Actors, &mut config)?,
            "store" => break words.end(Command::Store, &mut config)?,
            "migrate" => break words.end(Command::Migrate, &mut config)?,
            "rebuild-statistics" => break words.end(Command::RebuildStatistics, &mut config)?,
            "rebuild-streams" => break words.end(Command::RebuildStreams, &mut config)?,
            "admin" => break admin(&mut words, &mut config)?,
            "config" => {
                words.expect("config", "show")?;
                break words.end(Command::ConfigShow, &mut config)?;
            }
            other => return Err(refuse(&format!("`{other}` is not a command"))),
        }
    };
    Ok(Arguments { config, command })
}

fn up(words: &mut Words, config: &mut Option<PathBuf>) -> Result<UpOptions, Failure> {
    let mut options = UpOptions::default();
    while let Some(word) = words.next()? {
        match word.as_str() {
            "--config" => *config = Some(PathBuf::from(words.value("--config")?)),
            "--data-dir" => options.data_dir = Some(PathBuf::from(words.value("--data-dir")?)),
            "--public-host" => options.public_host = Some(words.value("--public-host")?),
            "--listen" => {
                let text = words.value("--listen")?;
                let address =
                    text.parse().map_err(|_| refuse(&format!("--listen: `{text}` is not an IP address such as 0.0.0.0")))?;
                options.listen = Some(address);
            }
            other => return Err(refuse(&format!("`up` has no option `{other}`"))),
        }
    }
    Ok(options)
}

fn admin(words: &mut Words, config: &mut Option<PathBuf>) -> Result<Command, Failure> {
    words.expect("admin", "create")?;
    let mut name = None;
    while let Some(word) = words.next()? {
        match word.as_str() {
            "--config" => *config = Some(PathBuf::from(words.value("--config")?)),
            "--name" => name = Some(words.value("--name")?),
            other => return Err(refuse(&format!("`admin create` has no option `{other}`"))),
        }
    }
    let name = name.ok_or_else(|| refuse("`admin create` needs --name"))?;
    Ok(Command::AdminCreate { name })
}

struct Words {
    rest: std::vec::IntoIter<OsString>,
}

impl Words {
    fn next(&mut self) -> Result<Option<String>, Failure> {
        let Some(word) = self.rest.next() else { return Ok(None) };
        word.into_string().map(Some).map_err(|word| refuse(&format!("{} is not UTF-8", word.display())))
    }

    /// Whether `--help` is among what is left.
    fn ask_for_help(&self) -> bool {
        self.rest.as_slice().iter().any(|word| word == "--help" || word == "-h")
    }

    /// The page of a command that is followed by what is left; the overview if it has none of its own.
    fn page(&self, command: Option<&str>) -> &'static str {
        let rest = self.rest.as_slice().iter().filter_map(|word| word.to_str());
        let words: Vec<&str> = command.into_iter().chain(rest).collect();
        help::page(&words).unwrap_or(HELP)
    }

    fn value(&mut self, option: &str) -> Result<String, Failure> {
        self.next()?.ok_or_else(|| refuse(&format!("{option} needs a value")))
    }

    fn expect(&mut self, command: &str, word: &str) -> Result<(), Failure> {
        match self.next()? {
            Some(found) if found == word => Ok(()),
            _ => Err(refuse(&format!("`{command}` is followed by `{word}`"))),
        }
    }

    fn end(&mut self, command: Command, config: &mut Option<PathBuf>) -> Result<Command, Failure> {
        while let Some(word) = self.next()? {
            if word == "--config" {
                *config = Some(PathBuf::from(self.value("--config")?));
            } else {
                return Err(refuse(&format!("`{word}` is not understood here")));
            }
        }
        Ok(command)
    }
}

fn refuse(what: &str) -> Failure {
    Failure::Settings(format!("{what}; `bowerbird --help` shows what there is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, Failure> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn each_command_is_understood() {
        let options = UpOptions {
            data_dir: Some("/srv/b".into()),
            listen: Some("0.0.0.0".parse().unwrap()),
            public_host: Some("nas.lan".into()),
        };
        assert_eq!(
            parsed("--config a.toml up --listen 0.0.0.0 --public-host nas.lan --data-dir /srv/b").unwrap(),
            Arguments { config: Some("a.toml".into()), command: Command::Up(options) }
        );
        assert_eq!(
            parsed("config show --config b.toml").unwrap(),
            Arguments { config: Some("b.toml".into()), command: Command::ConfigShow }
        );
        assert_eq!(parsed("admin create --name ada").unwrap().command, Command::AdminCreate { name: "ada".into() });
        for (line, command) in [
            ("gateway", Command::Gateway),
            ("actors", Command::Actors),
            ("store", Command::Store),
            ("migrate", Command::Migrate),
            ("rebuild-statistics", Command::RebuildStatistics),
            ("rebuild-streams", Command::RebuildStreams),
            ("--version", Command::Version),
            ("--help", Command::Help(HELP)),
        ] {
            assert_eq!(parsed(line).unwrap().command, command, "{line}");
        }
    }

    #[test]
    fn each_command_says_what_it_does() {
        for command in ["up", "gateway", "actors", "store", "migrate", "admin create", "config show"] {
            for line in [format!("{command} --help"), format!("{command} -h"), format!("help {command}")] {
                let Command::Help(page) = parsed(&line).unwrap().command else { panic!("{line}") };
                assert!(page.starts_with(&format!("usage: bowerbird {command}")), "{line}: {page}");
            }
        }
        assert_eq!(parsed("admin --help").unwrap().command, parsed("admin create --name ada --help").unwrap().command);
        assert_eq!(parsed("help").unwrap().command, Command::Help(HELP));
        assert!(parsed("fly --help").is_err());
        assert_eq!(parsed("--config a.toml --help").unwrap().command, Command::Help(HELP));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name_with_the_code_of_a_wrong_command_line() {
        for (line, named) in [
            ("", "no command"),
            ("fly", "`fly`"),
            ("up --fast", "--fast"),
            ("up --listen here", "here"),
            ("up --listen", "--listen"),
            ("config", "show"),
            ("gateway now", "now"),
            ("admin create", "--name"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.to_string().contains(named), "{line}: {error}");
            assert!(matches!(error, Failure::Settings(_)));
        }
    }
}
