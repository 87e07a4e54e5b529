package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"postman/daemon"
)

// flags are the settings that a command line can give; each wins over the environment and the file.
type flags struct {
	Config      string `help:"Configuration file (default: postman.yaml, if there is one)." placeholder:"FILE" env:"POSTMAN_CONFIG"`
	DatabaseURL string `help:"The database to watch." placeholder:"URL" group:"Settings"`
	LookupURL   string `help:"Where recipients are asked for (default: the database)." placeholder:"URL" group:"Settings"`
	StoreURL    string `help:"The outbox." placeholder:"sqlite:FILE" group:"Settings"`
	SMTPURL     string `name:"smtp-url" help:"The relay." placeholder:"URL" group:"Settings"`
	Mode        string `help:"live, redirect or dry-run; none sends nothing." placeholder:"MODE" group:"Settings"`
	Sender      string `help:"Sender of the mails (from)." placeholder:"ADDRESS" group:"Settings"`
	Redirect    string `help:"Where all mails go in mode redirect." placeholder:"ADDRESS" group:"Settings"`
	Bounce      string `help:"Envelope sender, where bounces go." placeholder:"ADDRESS" group:"Settings"`
	NotifyOps   string `help:"Who gets postman's own mails, of what is held." placeholder:"ADDRESS" group:"Settings"`
	Rules       string `help:"Rule file or folder." placeholder:"PATH" group:"Settings"`
	Templates   string `help:"Folder of templates." placeholder:"DIR" group:"Settings"`
	Slot        string `help:"Replication slot; the publications are named after it." placeholder:"NAME" group:"Settings"`
	HTTP        string `name:"http" help:"Operators' listener." placeholder:"HOST:PORT" group:"Settings"`
	LogFormat   string `help:"text or json." placeholder:"FORMAT" group:"Settings"`
	LogLevel    string `help:"debug, info, warn or error." placeholder:"LEVEL" group:"Settings"`
}

// settingsGroup is the group of these flags in the help.
const settingsGroup = "Settings"

// help prints a command's own flags. The settings are the same for all commands, and are listed where all of them matter: for postman
// itself, and for run.
func help(o kong.HelpOptions, ctx *kong.Context) error {
	command := ctx.Selected()
	if command == nil || command.Name == "run" {
		return kong.DefaultHelpPrinter(o, ctx)
	}
	for _, f := range ctx.Model.Flags {
		f.Hidden = f.Hidden || f.Group != nil && f.Group.Title == settingsGroup
	}
	if err := kong.DefaultHelpPrinter(o, ctx); err != nil {
		return err
	}
	_, err := fmt.Fprint(ctx.Stdout, "\nSettings such as --database-url, --rules and --templates: postman --help lists them.\n")
	return err
}

// resolve reads file, environment and flags into one configuration, not validated yet.
func (f *flags) resolve() (daemon.Config, error) {
	given := map[string]string{
		"DATABASE_URL": f.DatabaseURL, "LOOKUP_URL": f.LookupURL, "STORE_URL": f.StoreURL, "SMTP_URL": f.SMTPURL,
		"POSTMAN_MODE": f.Mode, "POSTMAN_FROM": f.Sender, "POSTMAN_REDIRECT": f.Redirect, "POSTMAN_BOUNCE": f.Bounce, "POSTMAN_NOTIFY_OPS": f.NotifyOps,
		"POSTMAN_RULES": f.Rules, "POSTMAN_TEMPLATES": f.Templates, "POSTMAN_SLOT": f.Slot, "POSTMAN_HTTP": f.HTTP,
		"POSTMAN_LOG_FORMAT": f.LogFormat, "POSTMAN_LOG_LEVEL": f.LogLevel,
	}
	c, err := daemon.LoadConfig(f.Config, func(name string) string {
		if v := given[name]; v != "" {
			return v
		}
		return os.Getenv(name)
	})
	if err = errors.Join(err, daemon.CheckEnviron(os.Environ())); err != nil {
		return c, usageError{err}
	}
	return c, nil
}
