// Package postman holds the repository's own rules and mail templates, those of the example CRM, for the demo where there is
// no checkout. The program is in cmd/postman.
package postman

import "embed"

// Example has rules.yaml and the folder templates.
//
//go:embed rules.yaml templates/*.html
var Example embed.FS
