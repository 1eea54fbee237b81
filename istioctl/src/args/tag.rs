//! Flags of `tag`.

use clap::{Args, Subcommand};

/// Examples below the help of `tag set`.
const SET: &str = "Examples:
  # A tag for the revision 1-8-0, for namespaces with the label istio.io/rev=prod
  istioctl tag set prod --revision 1-8-0
  # The same tag for another revision
  istioctl tag set prod --revision 1-8-1 --overwrite
  # What has the label istio-injection=enabled is that revision's, too
  istioctl tag set default --revision 1-8-1";
/// Examples below the help of `tag generate`.
const GENERATE: &str = "Example: istioctl tag generate prod --revision 1-8-0 > tag.yaml";

/// Flags of `tag`.
#[derive(Args, Debug)]
pub struct Tag {
    /// What to do.
    #[command(subcommand)]
    pub command: Action,
}

/// What is done with tags.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print the objects that make a tag.
    #[command(after_help = GENERATE)]
    Generate(Set),
    /// List tags, and the namespaces that name them.
    #[command(visible_alias = "show", after_help = "Example: istioctl tag list -o json")]
    List(List),
    /// Remove a tag: pods of namespaces that name it are injected no more.
    #[command(visible_alias = "delete", after_help = "Example: istioctl tag remove prod")]
    Remove(Remove),
    /// Make a tag, or let it stand for another revision.
    #[command(after_help = SET)]
    Set(Set),
}

/// Flags of `tag set` and `tag generate`.
#[derive(Args, Debug)]
pub struct Set {
    /// The tag.
    #[arg(value_name = "TAG")]
    pub tag: Vec<String>,
    /// Revision that it stands for.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub revision: String,
    /// The tag may be there already.
    #[arg(long)]
    pub overwrite: bool,
    /// Ask no question: yes.
    #[arg(short = 'y', long)]
    pub skip_confirmation: bool,
    /// Name of the webhook's configuration; istio-revision-tag-TAG without it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub webhook_name: String,
    /// With the tag default: namespaces without any label are injected, too.
    #[arg(long)]
    pub auto_inject_namespaces: bool,
}

/// Flags of `tag list`.
#[derive(Args, Debug)]
pub struct List {
    /// table, json or yaml.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: String,
}

/// Flags of `tag remove`.
#[derive(Args, Debug)]
pub struct Remove {
    /// The tag.
    #[arg(value_name = "TAG")]
    pub tag: Vec<String>,
    /// Ask no question: yes.
    #[arg(short = 'y', long)]
    pub skip_confirmation: bool,
}
