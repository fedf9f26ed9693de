#include "router/forms.h"
#include "router/forms_parts.h"

/* What the routes answer. */

#define COUNT "{'type':'integer','minimum':0}"

const struct form form_nothing = {"Nothing", "an empty body", .media = ""};
const struct form form_words = {"Words", "plain text", .media = "text/plain", .schema = STRING};
const struct form form_any = {"Anything", "an object", .schema = "{'type':'object'}"};
static const struct form_field status[] = {{"status", STRING, "ok", true}};
const struct form form_status = {"Status", "it works", FIELDS(status)};

static const struct form_field model[] = {
    {"id", STRING, "its name", true},
    {"object", "{'const':'model'}", "what this is", true},
    {"created", COUNT, "seconds since 1970 when the server started", true},
    {"owned_by", STRING, "banyan", true},
    {"root", STRING, "where it was read from", true},
    {"max_model_len", COUNT, "tokens of prompt and answer together", true},
};
const struct form form_model = {"Model", "one model", FIELDS(model)};
static const struct form_field models[] = {
    {"object", "{'const':'list'}", "what this is", true},
    {"data", "{'type':'array','items':{'$ref':'#/components/schemas/Model'}}", "what is served",
     true},
};
const struct form form_models = {"Models", "what is served", FIELDS(models)};

#define INFO \
    {"model_path", STRING, "where the model was read from", true}, \
        {"served_model_name", STRING, "its name", true}, \
        {"is_generation", "{'type':'boolean'}", "it makes text", true}, \
        {"model_type", STRING, "its family", true}, { \
        "architectures", LISTED, "as its config names them", true \
    }
static const struct form_field model_info[] = {INFO};
const struct form form_model_info = {"ModelInfo", "facts of the model", FIELDS(model_info)};
static const struct form_field server_info[] = {
    INFO,
    {"version", STRING, "of Banyan", true},
    {"status", "{'enum':['ready','starting']}", "can it serve", true},
    {"max_total_num_tokens", COUNT, "that the KV cache holds", true},
    {"context_length", COUNT, "tokens of prompt and answer together", true},
    {"uptime_s", COUNT, "seconds since the router started", true},
};
const struct form form_server_info = {"ServerInfo", "facts of the server", FIELDS(server_info)};
static const struct form_field loads[] = {
    {"timestamp", "{'type':'number'}", "when this was so, in seconds", true},
    {"version", STRING, "of Banyan", true},
    {"accelerator", STRING, "what it runs on", true},
    {"num_accelerators", COUNT, "ranks of all replicas", true},
    {"loads", "{'type':'array','items':{'type':'object','required':['dp_rank']}}", "one a replica",
     true},
};
const struct form form_loads = {"Loads", "how busy it is", FIELDS(loads), .stream = "text/plain"};

#define GENERATED \
    "{'type':'object','required':['text','output_ids','meta_info'],'properties':{'text':" STRING \
    ",'output_ids':{'type':'array','items':" TOKEN_ID "},'meta_info':{'type':'object'," \
    "'required':['id','finish_reason','prompt_tokens','completion_tokens','cached_tokens']}}}"
const struct form form_generated = {
    "Generated", "what came of each prompt and sample; a list for a list or n > 1",
    .stream = "text/event-stream",
    .schema = "{'anyOf':[" GENERATED ",{'type':'array','items':" GENERATED "}]}"};

#define USAGE \
    "{'type':'object','required':['prompt_tokens','completion_tokens','total_tokens']," \
    "'properties':{'prompt_tokens':" COUNT ",'completion_tokens':" COUNT ",'total_tokens':" COUNT \
    "}}"
#define OPENAI_ANSWER(kind) \
    {"id", STRING, "for /abort_request", true}, \
        {"object", "{'const':'" kind "'}", "what this is", true}, \
        {"created", COUNT, "seconds since 1970", true}, \
        {"model", STRING, "as it was asked for", true}, \
        {"choices", \
         "{'type':'array','items':{'type':'object','required':['index','finish_reason']}}", \
         "one a prompt and sample", true}, \
    { \
        "usage", USAGE, "tokens, exactly", true \
    }
static const struct form_field completion[] = {OPENAI_ANSWER("text_completion")};
const struct form form_completion = {"Completion", "what was said", FIELDS(completion),
                                     .stream = "text/event-stream"};
static const struct form_field chat_completion[] = {OPENAI_ANSWER("chat.completion")};
const struct form form_chat_completion = {"ChatCompletion", "what was said",
                                          FIELDS(chat_completion), .stream = "text/event-stream"};
static const struct form_field response[] = {
    {"id", STRING, "its id", true},
    {"object", "{'const':'response'}", "what this is", true},
    {"status", STRING, "completed or incomplete", true},
    {"output", LISTED, "reasoning, messages, function calls", true},
    {"usage", OBJECT, "tokens, exactly", true},
};
const struct form form_response = {"Response", "what was said", FIELDS(response),
                                   .stream = "text/event-stream"};
static const struct form_field message[] = {
    {"id", STRING, "its id", true},
    {"type", "{'const':'message'}", "what this is", true},
    {"role", "{'const':'assistant'}", "who speaks", true},
    {"content", LISTED, "blocks: thinking, text, tool_use", true},
    {"stop_reason", STRING, "end_turn, max_tokens, stop_sequence or tool_use", true},
    {"usage", OBJECT, "tokens, exactly", true},
};
const struct form form_message = {"Message", "what was said", FIELDS(message),
                                  .stream = "text/event-stream"};
static const struct form_field counted[] = {{"input_tokens", COUNT, "of the prompt", true}};
const struct form form_counted = {"Counted", "how long a prompt is", FIELDS(counted)};
static const struct form_field ollama_said[] = {
    {"model", STRING, "as it was asked for", true},
    {"created_at", STRING, "when", true},
    {"done", "{'const':true}", "of a stream: only in its last line", true},
    {"done_reason", STRING, "stop, length or abort", true},
    {"prompt_eval_count", COUNT, "tokens of the prompt", true},
    {"prompt_eval_duration", COUNT, "nanoseconds until the first token, without the wait", true},
    {"eval_count", COUNT, "tokens of the answer", true},
    {"eval_duration", COUNT, "nanoseconds from the first token on", true},
};
const struct form form_ollama_said = {"OllamaSaid", "what was said", FIELDS(ollama_said),
                                      .stream = "application/x-ndjson"};
#define NUMBERS "{'type':'array','items':{'type':'number'}}"
#define VECTOR_USAGE \
    "{'type':'object','required':['prompt_tokens','total_tokens'],'properties':{" \
    "'prompt_tokens':" COUNT ",'total_tokens':" COUNT "}}"
static const struct form_field embedding_list[] = {
    {"object", "{'const':'list'}", "what this is", true},
    {"data",
     "{'type':'array','items':{'type':'object','required':['object','index','embedding'],"
     "'properties':{'object':{'const':'embedding'},'index':" COUNT ",'embedding':{'anyOf':[" STRING
     "," NUMBERS "]}}}}",
     "one an input, in its order", true},
    {"model", STRING, "as it was asked for", true},
    {"usage", VECTOR_USAGE, "tokens, exactly", true},
};
const struct form form_embedding_list = {"EmbeddingList", "embeddings", FIELDS(embedding_list)};
#define ENCODED \
    "{'type':'object','required':['embedding','meta_info'],'properties':{'embedding':" NUMBERS \
    ",'meta_info':{'type':'object','required':['id','prompt_tokens']}}}"
const struct form form_encoded = {"Encoded", "the numbers of each text; a list for a list",
                                  .schema = "{'anyOf':[" ENCODED ",{'type':'array','items':" ENCODED
                                            "}]}"};
static const struct form_field ollama_embedded[] = {
    {"model", STRING, "as it was asked for", true},
    {"embeddings", "{'type':'array','items':" NUMBERS "}", "one an input, in its order", true},
    {"prompt_eval_count", COUNT, "tokens of all", true},
};
const struct form form_ollama_embedded = {"OllamaEmbedded", "embeddings", FIELDS(ollama_embedded)};
static const struct form_field ollama_embedding[] = {{"embedding", NUMBERS, "of the text", true}};
const struct form form_ollama_embedding = {"OllamaEmbedding", "an embedding",
                                           FIELDS(ollama_embedding)};
const struct form form_ranks = {
    "Ranks", "documents, the best first",
    .schema = "{'type':'array','items':{'type':'object','required':['score','index','meta_info'],"
              "'properties':{'score':{'type':'number'},'index':" COUNT ",'document':" STRING "}}}"};
static const struct form_field ranked[] = {
    {"id", STRING, "for /abort_request", true},
    {"model", STRING, "as it was asked for", true},
    {"results",
     "{'type':'array','items':{'type':'object','required':['index','relevance_score'],'properties':"
     "{'index':" COUNT ",'relevance_score':{'type':'number'},'document':{'type':'object',"
     "'required':['text'],'properties':{'text':" STRING "}}}}}",
     "documents, the best first", true},
    {"usage", VECTOR_USAGE, "tokens, exactly", true},
};
const struct form form_ranked = {"Ranked", "how well documents answer", FIELDS(ranked)};
static const struct form_field scores[] = {
    {"object", "{'const':'scoring'}", "what this is", true},
    {"scores", "{'type':'array','items':" NUMBERS "}", "one list an item, one number a label",
     true},
    {"model", STRING, "as it was asked for", true},
    {"usage", VECTOR_USAGE, "tokens, exactly", true},
};
const struct form form_scores = {"Scores", "how likely the labels are", FIELDS(scores)};
static const struct form_field ollama_tags[] = {{"models", LISTED, "what is served", true}};
const struct form form_ollama_tags = {"OllamaTags", "what is served", FIELDS(ollama_tags)};
static const struct form_field ollama_shown[] = {
    {"details", OBJECT, "its family", true},
    {"model_info", OBJECT, "its context length", true},
    {"capabilities", LISTED, "completion, tools, thinking", true},
};
const struct form form_ollama_shown = {"OllamaShown", "facts of the model", FIELDS(ollama_shown)};
static const struct form_field ollama_version[] = {{"version", STRING, "of Banyan", true}};
const struct form form_ollama_version = {"OllamaVersion", "the server's version",
                                         FIELDS(ollama_version)};
static const struct form_field tokens[] = {
    {"tokens", "{'anyOf':[" LIST_OF(TOKEN_ID) "," LIST_OF(LIST_OF(TOKEN_ID)) "]}",
     "ids, or of a list lists", true},
    {"count", "{'anyOf':[" COUNT "," LIST_OF(COUNT) "]}", "how many", true},
    {"max_model_len", COUNT, "how many there may be", true},
};
const struct form form_tokens = {"Tokens", "token ids", FIELDS(tokens)};
static const struct form_field words_of[] = {
    {"text", "{'anyOf':[" STRING "," LIST_OF(STRING) "]}", "what they say", true}};
const struct form form_text = {"Text", "a text", FIELDS(words_of)};
static const struct form_field prompt[] = {{"prompt", STRING, "as the model reads it", true}};
const struct form form_prompt = {"Prompt", "a rendered template", FIELDS(prompt)};
static const struct form_field parsed_calls[] = {
    {"normal_text", STRING, "what is no call", true},
    {"calls",
     LIST_OF("{'type':'object','required':['name','parameters'],'properties':{'tool_index':" COUNT
             ",'name':" STRING ",'parameters':" STRING "}}"),
     "in their order; parameters: JSON text", true},
};
const struct form form_parsed_calls = {"ParsedCalls", "a text without its calls, and these",
                                       FIELDS(parsed_calls)};
static const struct form_field separated[] = {
    {"reasoning_text", STRING, "what it thought", true},
    {"text", STRING, "what it says", true},
};
const struct form form_separated = {"Separated", "a text in two parts", FIELDS(separated)};
static const struct form_field tokenizer[] = {
    {"kind", STRING, "BPE, Unigram, WordPiece or WordLevel", true},
    {"vocab_size", COUNT, "the highest id and one", true},
    {"max_model_len", COUNT, "tokens of a context", true},
    {"bos_token", WORD, "null: it has none", true},
    {"eos_token", WORD, "likewise", true},
    {"eos_token_ids", LIST_OF(COUNT), "any of which ends a text", true},
    {"chat_template", WORD, "its Jinja text; null: there is none", true},
};
const struct form form_tokenizer = {"Tokenizer", "facts of the tokenizer", FIELDS(tokenizer)};
static const struct form_field drained[] = {
    {"draining", "{'type':'boolean'}", "new requests are refused", true},
    {"running", COUNT, "requests that still run", true},
};
static const struct form_field updated[] = {
    {"success", "{'type':'boolean'}", "false comes with 400: nothing has changed", true},
    {"message", STRING, "why not", true},
    {"num_paused_requests", COUNT, "requests that waited for it", true},
};
const struct form form_updated = {"WeightsUpdated", "what came of it", FIELDS(updated)};
const struct form form_drained = {"Drained", "how far it is", FIELDS(drained)};
