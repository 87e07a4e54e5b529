package rules

import "postman/cdc"

// readChange reads a change as the store keeps it: apart from its table's shape.
func readChange(shape, change []byte) (*cdc.Change, error) {
	var table *cdc.Table
	if len(shape) > 0 {
		var err error
		if table, err = cdc.ParseShape(shape); err != nil {
			return nil, err
		}
	}
	return cdc.ParseRest(change, table)
}
