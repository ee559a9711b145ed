// Rewrites ../yaml.json: what kubectl's YAML conversion makes of each text in it.
//
//	cd tests/vectors/generate-yaml && go run . ../yaml.json
//
// To add a case, append {"yaml": "..."} to the file and run this. Cases marked "refused_here" are
// texts that kubectl takes and we refuse; the mark is kept.
package main

import (
	"bytes"
	"encoding/json"
	"os"

	"sigs.k8s.io/yaml"
)

type vector struct {
	YAML        string `json:"yaml"`
	JSON        string `json:"json,omitempty"`
	Refused     bool   `json:"refused,omitempty"`
	RefusedHere bool   `json:"refused_here,omitempty"`
}

// Go escapes five characters that need no escape in JSON.
var escapes = map[string]string{"003c": "<", "003e": ">", "0026": "&", "2028": "\u2028", "2029": "\u2029"}

func withoutEscapes(text []byte) string {
	var out bytes.Buffer
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			out.WriteByte(text[i])
			continue
		}
		if text[i+1] == 'u' {
			if plain, found := escapes[string(text[i+2:i+6])]; found {
				out.WriteString(plain)
				i += 5
				continue
			}
		}
		out.Write(text[i : i+2])
		i++
	}
	return out.String()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	content, err := os.ReadFile(os.Args[1])
	must(err)
	var vectors []vector
	must(json.Unmarshal(content, &vectors))
	var out bytes.Buffer
	out.WriteString("[\n")
	for i, v := range vectors {
		converted, err := yaml.YAMLToJSON([]byte(v.YAML))
		v.JSON, v.Refused = withoutEscapes(converted), err != nil
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		must(encoder.Encode(v))
		if i < len(vectors)-1 {
			out.Truncate(out.Len() - 1)
			out.WriteString(",\n")
		}
	}
	out.WriteString("]\n")
	must(os.WriteFile(os.Args[1], out.Bytes(), 0o644))
}
