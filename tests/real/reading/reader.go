// An MCP server over stdio that says which tool it carried out, read as Go reads JSON: keys in any case, the last of two.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Name            string `json:"name"`
		ProtocolVersion string `json:"protocolVersion"`
	} `json:"params"`
}

type object map[string]any

func answer(m message, tools json.RawMessage) any {
	switch m.Method {
	case "initialize":
		return object{"protocolVersion": m.Params.ProtocolVersion, "capabilities": object{"tools": object{}}, "serverInfo": object{"name": "reader", "version": "1"}}
	case "tools/list":
		return object{"tools": tools}
	case "tools/call":
		return object{"content": []object{{"type": "text", "text": m.Params.Name}}}
	}
	return object{}
}

func main() {
	tools, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			panic(err)
		}
		if m.ID == nil {
			continue
		}
		line, err := json.Marshal(object{"jsonrpc": "2.0", "id": m.ID, "result": answer(m, tools)})
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}
