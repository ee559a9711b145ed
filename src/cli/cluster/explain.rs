//! Failed requests in one line: what was attempted, what happened, what to do next.

use std::error::Error;
use std::io;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", .problem)]
pub struct CallError {
    doing: String,
    problem: String,
    /// HTTP status code of the API server's answer, if it answered.
    pub code: Option<u16>,
}

impl CallError {
    pub(super) fn new(doing: String, address: &str, error: &kube::Error) -> Self {
        let code = match error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        };
        let problem = match code {
            Some(_) => describe(error),
            None => format!("the API server at {address} could not be asked: {}", describe(error)),
        };
        Self { doing, problem, code }
    }

    /// Whether the API server said that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == Some(404)
    }
}

/// One line about a failed request, with the next step.
#[must_use]
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let said = one_line(&status.message);
            match status.code {
                401 => "the API server does not accept these credentials; log in again, or choose another --context or --user".to_owned(),
                403 if said.contains("admission webhook") => said,
                403 => format!("{said}; ask for that right, or act as someone who has it with --as or --context"),
                429 | 503 => {
                    let code = status.code;
                    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
                    format!(
                        "the API server answered {code}{said}: it has too much to do or is not ready; try again later, \
                         and raise --request-timeout when it asks to wait for longer"
                    )
                }
                _ if said.is_empty() => format!("the API server answered {} {}", status.code, status.reason),
                _ => said,
            }
        }
        kube::Error::Auth(_) => {
            format!("{}; log in again, or choose another --context or --user", with_causes(error))
        }
        _ => describe_transport(error),
    }
}

fn describe_transport(error: &kube::Error) -> String {
    let kinds = io_kinds(error);
    let text = with_causes(error);
    if kinds.contains(&io::ErrorKind::ConnectionRefused) {
        "connection refused; is the cluster running, and is this the right --context?".to_owned()
    } else if kinds.contains(&io::ErrorKind::TimedOut) {
        "no answer in time; check the address and the network, or raise --request-timeout".to_owned()
    } else if text.contains("UnknownIssuer") {
        "its certificate is signed by an unknown authority; name the right one with --certificate-authority"
            .to_owned()
    } else if text.contains("NotValidForName") {
        "its certificate is for another name; say which with --tls-server-name".to_owned()
    } else if text.contains("dns error") || text.contains("failed to lookup") {
        "its name cannot be resolved; check the address and the network".to_owned()
    } else {
        text
    }
}

fn io_kinds(error: &kube::Error) -> Vec<io::ErrorKind> {
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).collect()
}

/// An error's causes, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| inner(*cause))
}

fn inner<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>() {
        // `source` of an I/O error leaves out the error that it wraps.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => cause.source(),
    }
}

/// An error and its causes in one line, leaving out a cause that its parent quotes already.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
    }
    one_line(&text)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn answer(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status { code, message: message.into(), ..Status::default() }.boxed())
    }

    #[test]
    fn a_missing_right_names_the_right_and_the_next_step() {
        let said = "configmaps \"a\" is forbidden: User \"eve\" cannot get resource \"configmaps\"";
        let error = CallError::new("reading ConfigMap ns/a".into(), "https://h", &answer(403, said));
        let text = error.to_string();
        assert!(text.starts_with("reading ConfigMap ns/a: configmaps \"a\" is forbidden"), "{text}");
        assert!(text.ends_with("with --as or --context"), "{text}");
    }

    #[test]
    fn expired_credentials_ask_for_a_new_login() {
        assert!(describe(&answer(401, "Unauthorized")).contains("log in again"));
    }

    #[test]
    fn a_refused_connection_is_told_without_the_layers_it_came_through() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(io::Error::other(refused)));
        let text = CallError::new("reading".into(), "https://h:1", &error).to_string();
        assert_eq!(
            text,
            "reading: the API server at https://h:1 could not be asked: connection refused; is the cluster running, and is this the right --context?"
        );
    }

    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(
            describe(&answer(422, "is invalid:\n  spec.a: Required\n")),
            "is invalid: spec.a: Required"
        );
    }
}
