package templates

import "embed"

// Example is the folder of the mails that the repository's rules.yaml sends, for the demo.
//
//go:embed *.html
var Example embed.FS
